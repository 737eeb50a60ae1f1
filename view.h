/* L2 priv: which programs a cell has, made from the policy's two lists of names. */
#ifndef VIEW_H
#define VIEW_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "msg.h"
#include "util.h"

enum { VIEW_FORBIDDEN, VIEW_ALLOWED, VIEW_LISTS };

/* The names as they came over the wall: forbidden ones, then allowed ones, each NUL-terminated. */
struct view_lists { size_t n; uint32_t count[VIEW_LISTS]; char text[MSG_ASK_MAX]; };

/* What came of them. why: what is not enforced, and the reason, or "". exec: paths beside the folders of
 * programs that may be executed, each NUL-terminated. */
struct view { uint32_t exec_n; char why[112], exec[4096]; };

/* Takes names from arena. False when one of them is none: it could be a path. */
bool view_set_lists(struct view_lists *l, const char *text, size_t n, const uint32_t count[VIEW_LISTS]);

/* These three change the mounts of the caller's own mount namespace, in which the cell's root is
 * finished; false and errno on the first step that fails, and the namespace is then of no use.
 * The host's program files outside the folders of programs become not executable, nor loadable. */
bool view_quiet(struct view *v);
/* After view_quiet: the folders of programs have the shell, the allowed programs and their interpreters. */
bool view_allow(const struct view_lists *l, struct view *v);
/* The forbidden programs are covered. */
bool view_forbid(const struct view_lists *l, struct view *v);

/* Where there are no mounts of one's own: the allowed programs, all of them in exec. */
void view_resolve(const struct view_lists *l, struct view *v);

/* Lets a Landlock ruleset execute what the view has; in_folders: what is in the folders of programs as well.
 * -1 and errno. */
int view_landlock(int ruleset_fd, const struct view *v, bool in_folders);
/* In a finished cell: from now on only these programs of the folders, their interpreters and the shell can be
 * executed, by Landlock, however little the cell had before. names: count of them, each NUL-terminated. */
int view_shrink(const char *names, uint32_t count);
#endif
