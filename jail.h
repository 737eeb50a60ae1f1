/* L3 priv: the steps that make a cell. Runs in the warden and in cells under construction. */
#ifndef JAIL_H
#define JAIL_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "conf.h"
#include "msg.h"
#include "view.h"

/* Three ways to the same jail: as root; through a user namespace; and what is left when the host
 * allows neither: filter, NO_NEW_PRIVS, limits and Landlock around an ordinary process. */
enum jail_mode { JAIL_ROOT = 1, JAIL_USER = 2, JAIL_BASIC = 4 };

/* Fds of a cell under construction and of its process 1, at fixed places. */
enum { JAIL_CONTROLLERS = 3 };
enum { JAIL_OOM, JAIL_PIDS, JAIL_EVENTS }; /* files of the cgroup that count what its limits refused */
enum { CELL_CTL = 3, CELL_EVENTS = 4, CELL_JOIN = CELL_EVENTS + JAIL_EVENTS, CELL_FDS = CELL_JOIN + JAIL_CONTROLLERS, CELL_NOTICES = 30 };
enum { CELL_UID = 1000 /* inside a user namespace */ };

/* What all cells of one warden share; made once. */
struct jail {
	enum jail_mode mode;
	uid_t uid_base; /* slot n runs as uid_base + n where uids can be had, else -1 */
	int template_fd, quiet_fd, home_net_fd, tmp_lock_fd;
	int landlock_abi;
	bool userns, cgroup;
	bool notify; /* refused calls are told to process 1, which says so in its result */
	bool in_userns; /* the warden lives in a user namespace: ours, or the container's */
	bool shared_count; /* RLIMIT_NPROC counts processes that are not the cell's */
	unsigned masks; /* bit i: this host has file i of the list that is masked in /proc */
	char tmp[32]; /* basic: our folder in the host's /tmp, locked as long as we live */
	uint64_t home_ns[4]; /* inode numbers of the warden's own namespaces */
	struct jail_cgroup { char dir[224]; bool v2; int lock_fd; } cgroups[JAIL_CONTROLLERS];
	char why[LAYERS][112], quiet_why[112];
	struct { int fd; bool fresh; struct view v; } view[CONF_PROFILES]; /* fd -1: the template is as good */
	struct view_lists lists;
};

/* What a slot has open, -1 for nothing: its namespaces, then what its cells get from CELL_EVENTS on, in the same order. */
enum { SLOT_NET, SLOT_USER, SLOT_EVENTS, SLOT_JOIN = SLOT_EVENTS + JAIL_EVENTS, SLOT_FDS = SLOT_JOIN + JAIL_CONTROLLERS };

/* What one cell at a time uses and the next one uses again. An empty network namespace can't be
 * changed from inside a cell, which can make no socket and holds no capability over it; the user
 * namespace is the same: its maps are written once (user_namespaces(7)). */
struct jail_slot {
	uint32_t n, profile; /* profile: the one its cgroup is set to, CONF_PROFILES for none */
	int fd[SLOT_FDS];
	char tmp[40]; /* the writable folder: /tmp, or in basic one of the cell's own */
	bool open;
};

/* Why something failed: the step's name and errno. */
struct jail_error { const char *step; int error; };

/* j is zero. Makes the template and finds out what this host offers; may put the warden itself into a user
 * namespace. port makes the uids differ between daemons of one host. */
bool jail_open(struct jail *j, enum jail_mode mode, uint16_t port, struct jail_error *e);
/* Takes new lists of programs; cells that are built from now on have no others. False when they are wrong. */
bool jail_set_lists(struct jail *j, const char *text, size_t n, const uint32_t count[VIEW_LISTS]);
/* Makes the root that this profile's cells see, unless it is up to date; *made says that it was made. */
bool jail_view_ready(struct jail *j, uint32_t profile, bool *made, struct jail_error *e);
/* Makes what the slot's next cell needs; once what all of them use, with its cgroup set to the profile. */
bool jail_slot_ready(struct jail *j, struct jail_slot *s, uint32_t profile, struct jail_error *e);
/* The uid outside of a user namespace that the slot's cells have, or -1: the caller's. */
uid_t jail_slot_uid(const struct jail *j, const struct jail_slot *s);
/* The slot's cell is dead: nothing of it stays for the next one. */
void jail_slot_spent(const struct jail *j, const struct jail_slot *s);
/* Removes cgroups and folders; every cell must be dead. */
void jail_close(struct jail *j, struct jail_slot *slots, size_t n);
/* The clone(2) flags of a cell's process 1. */
unsigned long jail_clone_flags(const struct jail *j);
/* In the new process: walks every step that this mode has. fds are control, stdin, stdout, stderr;
 * afterwards they are at CELL_CTL, 0, 1, 2. False and the step on the first failure: the caller
 * must then end. On success layers has one bit for each thing that was set up. */
bool jail_enter(const struct jail *j, const struct jail_slot *s, const int fds[MSG_FDS], uint32_t *layers, struct jail_error *e);
/* In a probe's process 1, after jail_enter: the layers that the kernel confirms when asked. */
uint32_t jail_observe(const struct jail *j, const struct jail_slot *s, uint32_t layers);

/* Gives up what arena has no need of: own uid (root only), an empty root, no capability,
 * NO_NEW_PRIVS, its filter. */
bool jail_surrender(uid_t uid_base, struct jail_error *e);
/* The first uid of the 256 for a daemon on this port, or -1 where this process can't have them. */
uid_t jail_uid_base(uint16_t port);
#endif
