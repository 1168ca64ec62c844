/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the import_*.c share; nobody else includes it. */
#pragma once

#include <json-c/json.h>
#include <stdio.h>

#include "agent/import.h"

#define IMPORT_MAX_WORDS 1024
#define IMPORT_MAX_IMAGES 64
#define IMPORT_MAX_DEPTH 32
#define IMPORT_MIB ((uint64_t)1 << 20)

/* import_words.c */
struct import_word {
	char *text;
	unsigned line, column; /* from 1; line 0: word number `column` of a text parted by NULs */
	bool assigns;          /* NAME= stands there without quotes */
};

struct import_words {
	struct import_word word[IMPORT_MAX_WORDS];
	size_t n;
};

/* 0, -EINVAL with err, or -ENOMEM; deinit in every case. */
int import_split(const char *source, const char *text, size_t len, struct import_words *w, char *err, size_t err_size);
void import_words_deinit(struct import_words *w);
/* word as it is written into Arguments=; to free, NULL without memory. ASCII only. */
char *import_quote(const char *word);

/* import_props.c. implied: the key that a first word without '=' belongs to, or NULL. */
/* NULL with *why = "reason; remedy" if it is neither. ret_repeats, or NULL: a key stands there more than once; the object has the last one. */
json_object *import_props(const char *value, const char *implied, bool *ret_repeats, const char **why);
char *import_props_text(json_object *o, bool json, const char *implied); /* to free */
/* "a.b": the member of that name, or b of a. NULL where there is none or no single value. */
const char *import_get(json_object *o, const char *key);
bool import_is_on(json_object *o, const char *key, bool otherwise);
json_object *import_nest(json_object *o); /* a.b=c as {"a":{"b":"c"}}, but not where there is a=d; a new object */
/* Is word in text, not as a part of a longer one? */
bool import_mentions(const char *text, const char *word);

/* import.c */
enum import_fate { IMPORT_KEEP, IMPORT_CHANGED, IMPORT_LEFT_OUT };

struct import_option {
	const char *name;    /* "-device"; "" for a word that belongs to no option */
	char *value;         /* NULL: has none */
	json_object *props;  /* of an option that has them */
	bool json;
	bool repeats;        /* a key of theirs: props do not have them all */
	const char *implied;
	const struct import_word *at; /* NULL: not the operator's */
	enum import_fate fate;
	bool refused;
};

struct import_image {
	char place[512];
	bool writable;
};

struct import {
	const struct import_input *in;
	struct import_words words;
	struct import_option option[IMPORT_MAX_WORDS];
	size_t n_options;
	struct import_image image[IMPORT_MAX_IMAGES];
	size_t n_images;
	char name[64], uuid[40];
	uint64_t memory_bytes;
	uint32_t vcpus;
	char binary[512];
	FILE *comments; /* what was left out or changed, and why */
	FILE *warnings;
	FILE *refusals;
	unsigned unsafe;
	bool no_memory;
};

void import_refuse(struct import *im, struct import_option *o, const char *fmt, ...) _printf_(3, 4);
void import_warn(struct import *im, bool unsafe, const char *fmt, ...) _printf_(3, 4);
void import_leave_out(struct import *im, struct import_option *o, const char *why);
/* After o->props was edited, or with another text for the value; name may be another one, too. */
void import_change(struct import *im, struct import_option *o, const char *name, const char *value, const char *why);
/* An option that is kept and uses id; NULL if there is none but `except`. */
const struct import_option *import_user_of(const struct import *im, const char *id, const struct import_option *except);

/* NULL, after refusing, if there is no room or memory; value may be NULL. */
struct import_option *import_add_option(struct import *im, const char *name, const char *value, const struct import_word *at);
extern const char import_needs_display[], import_teardown_stays[]; /* reasons */

/* import_keys.c */
void import_keys(struct import *im);
void import_display(struct import *im); /* when all else is done */

/* import_disks.c */
void import_disks(struct import *im);
bool import_is_image(const struct import *im, const char *value);

/* import_nets.c */
void import_nets(struct import *im);
/* Is a path in it in one of the directories that libvirt makes and empties? Its images, in /var/lib/libvirt/images, are files like others. */
bool import_is_libvirts(const char *text);
