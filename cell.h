/* L4 priv: process 1 of a cell, and the child beside it that becomes the command. */
#ifndef CELL_H
#define CELL_H
#include "jail.h"

/* The whole life of a cell, from the new process to its end; never returns. fds: control, stdin,
 * stdout, stderr. A probe has what it set up confirmed by the kernel before it says so. */
_Noreturn void cell_main(const struct jail *j, const struct jail_slot *s, const int fds[MSG_FDS], bool probe);
#endif
