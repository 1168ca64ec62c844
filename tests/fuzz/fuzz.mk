# SPDX-License-Identifier: GPL-2.0-or-later
# Builds the fuzz targets: make -f $srcdir/tests/fuzz/fuzz.mk srcdir=... [TARGET...], in a directory of its own. Called by tests/fuzz/run.
# The daemons' files are compiled as shipped, except that main() gets another name, and a few system calls one that stays inside the process.

CC = clang
TARGETS = fuzz_blocks fuzz_catalog fuzz_conf fuzz_guest_agent fuzz_ipc fuzz_keeper fuzz_qmp fuzz_reservation fuzz_ring fuzz_vmfile
PACKAGES = libcpg libcmap libqb json-c libiscsi libnfs libsystemd gnutls
SAN = -fsanitize=address,undefined -fno-sanitize-recover=all
CFLAGS = -std=gnu11 -g -O1 -fno-omit-frame-pointer $(SAN) -Wall -Wno-unused-parameter -D_GNU_SOURCE -DPACKAGE_VERSION='"fuzz"' \
	-DPKGLIBEXECDIR='"/usr/libexec/kvm-ha"' -DPACKAGE_TITLE='"kvm-ha"' -DAGENT_MAX_VMS=12 \
	-I$(srcdir) $(shell pkg-config --cflags $(PACKAGES))
LIBS = $(shell pkg-config --libs $(PACKAGES)) -lpthread

# All of the product, each file once. What a target defines itself (agentd.c, keeperd.c, edges.c, loop.c) keeps the member of the same names out.
LIB = $(patsubst $(srcdir)/%.c,%.o,$(filter-out %/launch.c,$(foreach d,agent agent/base agent/core fence qmp storage,$(wildcard $(srcdir)/$(d)/*.c))))
EDGES = tests/fuzz/edges.o tests/fuzz/loop.o
AGENT = tests/fuzz/agentd.o $(EDGES)
KEEPER = tests/fuzz/keeperd.o

# What the fuzzer is led by: the product, not the surroundings.
COVERAGE = -fsanitize=fuzzer-no-link
$(AGENT) $(KEEPER) $(TARGETS:%=tests/fuzz/%.o) storage/crc32c.o: COVERAGE =

FILES = -Dfopen=fuzz_fopen -Drename=fuzz_rename
SOCKETS = -Dbind=fuzz_bind -Dlisten=fuzz_listen -Daccept4=fuzz_accept4 -Dunlink=fuzz_unlink \
	-Dmkdir=fuzz_mkdir -Dchmod=fuzz_chmod -Dgetsockopt=fuzz_getsockopt
# Every round of a keeper sums some hundred KiB.
storage/crc32c.o: EXTRA = -O2 -fno-sanitize=undefined
agent/agent.o: EXTRA = -Dmain=agent_main $(FILES)
agent/server.o fence/keeper_clients.o: EXTRA = $(SOCKETS)
agent/keeper_link.o agent/ctl_client.o: EXTRA = -Dconnect=fuzz_connect
agent/base/program.o: EXTRA = -Dconnect=fuzz_refuse
agent/ctl.o: EXTRA = -Dmain=ctl_main
agent/ctl_agent.o: EXTRA = -Dsleep=fuzz_sleep
storage/volop.o: EXTRA = -Dvolume_read=fuzz_volume_read -Dvolume_write=fuzz_volume_write
fence/keeper_volumes.o: EXTRA = -Dvolume_why=fuzz_volume_why
fence/keeper.o: EXTRA = -Dmain=keeper_main -Dmlockall=fuzz_mlockall -Dsched_setscheduler=fuzz_sched_setscheduler $(FILES)

all: $(TARGETS)

fuzz_conf: $(EDGES)
fuzz_ipc: $(AGENT)
fuzz_keeper fuzz_ring: $(AGENT) $(KEEPER)

# The replaced edges come before the archive, so that its members of the same name are never looked at.
$(TARGETS): %: tests/fuzz/%.o libproduct.a
	@echo "  LINK     $@"
	@$(CC) $(CFLAGS) -fsanitize=fuzzer -o $@ $(filter %.o,$^) libproduct.a $(LIBS)

libproduct.a: $(LIB)
	@rm -f $@
	@ar rcs $@ $^

OBJECTS = $(sort $(LIB) $(AGENT) $(KEEPER) $(TARGETS:%=tests/fuzz/%.o))
$(OBJECTS): %.o: $(srcdir)/%.c $(srcdir)/tests/fuzz/fuzz.mk
	@mkdir -p $(@D)
	@echo "  CC       $*.c"
	@$(CC) $(CFLAGS) $(COVERAGE) $(EXTRA) -MMD -MP -c -o $@ $<

.PHONY: all
-include $(OBJECTS:.o=.d)
