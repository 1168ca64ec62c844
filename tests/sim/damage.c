/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What may happen to the content of a volume, apart from being slow or away, and how it comes to an end:
 *
 *   rot           a buffer of a slot becomes unreadable; its writer writes it again
 *   misdirected   a write is acknowledged and lands in another node's slot, or on another volume
 *   torn reads    a read meets a block in the middle of being written
 *   wiped         the volume shows zeros, or another cluster's blocks: somebody has mapped another LUN. Later it is the right one again, as it was
 *   rolled back   the storage loses the last seconds and comes back with an older state of the volume
 *
 * A keeper that finds the superblock gone or a block older than before does not use that volume again until it is started anew: an operator's business,
 * `systemctl restart ha-keeper` on each node once the volume is right (its VMs run on). damage_repaired() is that operator. A volume cannot be
 * replaced while the cluster runs; a roll-back of the only volume, or of two, is nothing a cluster can live through: stop it and `ha-ctl volume init`. */
#include "tests/sim/sim.h"

static struct { struct block *block[SIM_MAX_NODES][2][2]; } image[SIM_MAX_TARGETS]; /* what a volume will be rolled back to */
static bool imaged[SIM_MAX_TARGETS];

static void drop(struct block **b)
{
	block_unref(*b);
	*b = NULL;
}

static void forget_image(unsigned v)
{
	for (unsigned i = 0; i < SIM_MAX_NODES && imaged[v]; i++)
		for (unsigned k = 0; k < 2; k++)
			for (unsigned b = 0; b < 2; b++)
				drop(&image[v].block[i][k][b]);
	imaged[v] = false;
}

void damage_reset(void)
{
	for (unsigned v = 0; v < SIM_MAX_TARGETS; v++)
		forget_image(v);
}

bool damage_possible(uint32_t id, enum block_kind kind)
{
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		struct block *const (*d)[2] = sim.target[v].data.block[id - 1];

		for (unsigned k = 0; k < 2; k++)
			if (d[k][0]->status != FORMAT_OK || d[k][1]->status != FORMAT_OK)
				return false;
		if (kind == BLOCK_HEARTBEAT && block_epoch(d[kind][0]) != block_epoch(d[kind][1]))
			return false;
	}
	return true;
}

void damage_rot(unsigned volume, uint32_t id)
{
	enum block_kind kind = (enum block_kind)rnd(2);
	unsigned buffer = (unsigned)rnd(2);

	if (!damage_possible(id, kind))
		return;
	block_spoil(&sim.target[volume].data, kind, id, buffer, FORMAT_E_CRC);
	/* Both, where two other volumes are left and well, and the writer lives to write it again. */
	if (sim.n_volumes == FORMAT_MAX_VOLUMES && sim.liar == (int)volume && sim_node(id)->up && chance(300))
		block_spoil(&sim.target[volume].data, kind, id, !buffer, FORMAT_E_CRC);
	chaos_effect(CHAOS_ROT);
}

static bool writes_to(unsigned volume, const struct op *op)
{
	for (const struct op *o = sim.target[volume].ops; o; o = o->next)
		if (o->block && o->kind == op->kind && o->node == op->node && !o->phys_done)
			return true;
	return false;
}

/* The writer is told that all went well. */
void damage_misdirect(struct op *op)
{
	unsigned other = (op->target + 1 + (unsigned)rnd(sim.n_volumes)) % sim.n_volumes;
	uint32_t victim = 1 + (uint32_t)rnd(sim.n_nodes);

	chaos_effect(CHAOS_MISDIRECT);
	check_swallowed(op);
	history_add("chaos: volume %u: node %u's %s goes astray", op->target, op->node->id, op->block->kind == BLOCK_CLAIMS ? "claims" : "heartbeat");
	if (other != op->target && chance(300)) {
		/* There it looks as if the copy for that volume had landed: nothing but a second fault if that one is stuck. */
		if (sim.target[other].shows == FORMAT_OK && !writes_to(other, op))
			block_land(&sim.target[other].data, op->block, op->node->id, op->buffer);
	} else if (victim != op->node->id && damage_possible(victim, op->block->kind)) {
		block_spoil(&sim.target[op->target].data, op->block->kind, victim, (unsigned)rnd(2), FORMAT_E_MISPLACED);
	}
}

/* Some sectors of a write that is being executed, the others as they were. */
void damage_torn_read(struct op *read)
{
	enum block_kind kind = read->kind == OP_READ_TABLE ? BLOCK_HEARTBEAT : BLOCK_CLAIMS;

	for (const struct op *o = sim.target[read->target].ops; o; o = o->next)
		if (o->block && o->block->kind == kind && !o->phys_done && o->arrive <= sim.now && !o->blocked && chance(500) &&
		    snapshot_tear(read->snap, o->block, o->node->id, o->buffer))
			chaos_effect(CHAOS_TORN_READS);
}

/* Another LUN gets it: acknowledged, and not there when the right one is back. */
void damage_foreign_write(const struct op *op)
{
	chaos_effect(sim.target[op->target].shows == FORMAT_E_BLANK ? CHAOS_WIPE : CHAOS_FOREIGN);
	check_swallowed(op);
}

bool damage_show(unsigned volume, enum format_status shows)
{
	if (sim.target[volume].shows != FORMAT_OK)
		return false;
	sim.target[volume].shows = shows;
	return true;
}

/* One volume of several, while the others are well: the quorums are made for one. */
bool damage_image(unsigned volume)
{
	if (sim.n_volumes < 2)
		return false;
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		if (imaged[v] || sim.target[v].shows != FORMAT_OK)
			return false;
		for (uint32_t id = 1; id <= sim.n_nodes; id++)
			if (!damage_possible(id, BLOCK_CLAIMS))
				return false;
	}
	imaged[volume] = true;
	for (unsigned i = 0; i < sim.n_nodes; i++)
		for (unsigned k = 0; k < 2; k++)
			for (unsigned b = 0; b < 2; b++)
				image[volume].block[i][k][b] = block_ref(sim.target[volume].data.block[i][k][b]);
	return true;
}

static bool all_reach(unsigned but)
{
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		const struct target *t = &sim.target[v];

		if (v != but && (t->hung || t->cut || t->bad_writes || t->bad_reads || t->shows != FORMAT_OK))
			return false;
	}
	return true;
}

void damage_roll_back(unsigned volume)
{
	struct target *t = &sim.target[volume];

	if (!imaged[volume])
		return;
	if (all_reach(volume)) {
		history_add("chaos: volume %u is rolled back", volume);
		chaos_effect(CHAOS_ROLLBACK);
		t->rolled_back = true;
		for (unsigned i = 0; i < sim.n_nodes; i++)
			for (unsigned k = 0; k < 2; k++)
				for (unsigned b = 0; b < 2; b++)
					block_land(&t->data, image[volume].block[i][k][b], i + 1, b);
		check_rolled_back(volume);
		for (uint32_t id = 1; id <= sim.n_nodes; id++)
			check_lost(id);
	}
	forget_image(volume);
}

bool damage_repaired(void)
{
	bool all = true;

	for (unsigned i = 0; i < sim.n_nodes; i++) {
		struct node *n = &sim.node[i];

		for (unsigned v = 0; v < sim.n_volumes && n->k_runs; v++) {
			if (n->keeper->volume[v].fault == FAULT_NONE)
				continue;
			all = false;
			if (sim.target[v].shows == FORMAT_OK && proc_alive(&n->kproc) && !n->kproc.stopped && !n->k_stopping) {
				history_add("operator: restarts the keeper of node %u for volume %u: %s", n->id, v,
					    volume_fault_text(n->keeper->volume[v].fault));
				machine_stop_keeper(n);
				break;
			}
		}
	}
	return all;
}

void damage_heal(void)
{
	for (unsigned v = 0; v < sim.n_volumes; v++) {
		forget_image(v);
		sim.target[v].shows = FORMAT_OK;
		sim.target[v].misdirect = 0;
		sim.target[v].torn_reads = false;
	}
}
