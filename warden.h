/* L5 priv: the one process that keeps privilege; it never sees a byte from the network. */
#ifndef WARDEN_H
#define WARDEN_H
#include "jail.h"

/* Starts the warden in a child process: its end of the wall, and its pid in *pid, or -1. It opens
 * the jail in one mode, says msg_hello, and ends at once if that mode is not to be had. c, which must
 * stay, names the few files that it hands over and replaces. */
int warden_start(enum jail_mode mode, uint16_t port, const struct conf *c, pid_t *pid);
#endif
