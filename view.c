/* L2 priv: which programs a cell has, made from the policy's two lists of names. Runs in short-lived
 * children of the warden, in a mount namespace whose root is the cells' own: every path is one that a
 * cell would see, below folders of the host that only root can change.
 *
 * A list of names is kept by what is there, not by what is asked for: in strict the folders of programs
 * are small ones of our own, with one bind mount for each program, and every other program file is on a
 * mount without exec, which neither execve(2) nor the dynamic loader's mmap(2) gets past (mount(2),
 * MS_NOEXEC). In moderate a forbidden program is covered by a device that can't be executed. */
#include "view.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys.h"

enum { SCAN_DEPTH = 32, SCAN_BYTES = 32768, MOUNTS_MAX = 512, INTERPRETERS = 4 };
enum { BOUND = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV };

static const char program_folders[][17] = {
	"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/games", "/usr/games",
};
/* The dynamic loaders, which the kernel executes with a program (elf(5), PT_INTERP). */
static const char loaders[][28] = {
	"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1",
};
/* One file that is many programs, by the name it is called with. */
static const char multi_call[][10] = {"busybox", "toybox", "coreutils"};

/* The folders of programs as they are, without links: /bin may be /usr/bin. Found once by each function of view.h. */
static struct { size_t n; char path[countof(program_folders)][PATH_MAX]; } folders;

/* The first thing that is not enforced is the one that is told. */
static void say(struct view *v, const char *what, const char *why)
{
	if (!v->why[0])
		(void)text_printf(v->why, sizeof v->why, "%s%s", what, why);
}

bool view_set_lists(struct view_lists *l, const char *text, size_t n, const uint32_t count[VIEW_LISTS])
{
	size_t names = (size_t)count[0] + count[1];

	if (n > sizeof l->text || names > n || !msg_check_words(text, n, names))
		return false;
	for (size_t at = 0, len; at < n; at += len + 1) {
		len = strlen(text + at);
		if (len == 0 || len > MSG_NAME_MAX || strchr(text + at, '/') || strcmp(text + at, ".") == 0 || strcmp(text + at, "..") == 0)
			return false;
	}
	memcpy(l->text, text, n);
	l->n = n;
	memcpy(l->count, count, sizeof l->count);
	return true;
}

/* The first name of a list; the next ones follow, each NUL-terminated. */
static const char *names_of(const struct view_lists *l, int list)
{
	const char *p = l->text;
	for (uint32_t i = 0; list == VIEW_ALLOWED && i < l->count[VIEW_FORBIDDEN]; i++)
		p += strlen(p) + 1;
	return p;
}

/* The folder of programs whose name is the first n bytes of a path: its index, or -1. */
static int folder_at(const char *path, size_t n)
{
	for (size_t i = 0; i < folders.n; i++)
		if (strlen(folders.path[i]) == n && memcmp(folders.path[i], path, n) == 0)
			return (int)i;
	return -1;
}

static bool find_folders(void)
{
	folders.n = 0;
	for (size_t i = 0; i < countof(program_folders); i++) {
		char *real = folders.path[folders.n]; /* there is one for each */
		if (sys_real_path(program_folders[i], real) == 0)
			folders.n += folder_at(real, strlen(real)) < 0;
		else if (errno != ENOENT && errno != ENOTDIR)
			return false;
	}
	return true;
}

static bool is_program(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0111);
}

static bool is_multi_call(const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	for (size_t i = 0; i < countof(multi_call); i++)
		if (strncmp(name, multi_call[i], strlen(multi_call[i])) == 0)
			return true;
	return false;
}

static bool bind_with(const char *from, const char *to, unsigned long flags)
{
	return mount(from, to, NULL, MS_BIND, NULL) == 0 && mount(NULL, to, NULL, BOUND | flags, NULL) == 0;
}

/* ---- program files outside the folders of programs ---- */

/* Folders that hold no libraries (hier(7)): what they have is not looked through, but not executed either. */
static const char data_folders[][13] = {"/usr/share", "/usr/include", "/usr/src"};
/* Endings of files that are no programs and so many that asking for each one's mode takes its time. */
static const char data_files[][6] = {".py", ".pyc", ".h", ".hpp", ".js", ".html", ".json", ".txt", ".pm", ".ko", ".mo", ".a"};

struct scan { struct buf paths; size_t count; bool deep; char path[PATH_MAX]; };
enum { PROGRAMS = 1, LIBRARIES = 2 };

static bool is_elf(int dir, const char *name)
{
	char head[4] = "";
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	bool elf = fd >= 0 && read(fd, head, sizeof head) == sizeof head && memcmp(head, "\177ELF", sizeof head) == 0;
	if (fd >= 0)
		(void)close(fd);
	return elf;
}

static bool is_data(const char *name)
{
	const char *dot = strrchr(name, '.');
	for (size_t i = 0; dot && i < countof(data_files); i++)
		if (strcmp(dot, data_files[i]) == 0)
			return true;
	return false;
}

/* A folder that is not gone into: its programs are dealt with otherwise. */
static bool is_set_apart(const char *path)
{
	for (size_t i = 0; i < countof(data_folders); i++)
		if (strcmp(data_folders[i], path) == 0)
			return true;
	return folder_at(path, strlen(path)) >= 0;
}

static void keep_path(struct scan *c, size_t len)
{
	buf_put(&c->paths, c->path, len);
	buf_put(&c->paths, "", 1);
	c->count++;
}

/* What a folder holds, by PROGRAMS and LIBRARIES. One that has programs and no library is kept whole
 * instead of what was kept of it. Takes over fd; c->path has len bytes, the folder's name. */
static unsigned scan_folder(struct scan *c, int fd, size_t len, int depth)
{
	size_t mark = c->paths.n, marked = c->count;
	struct sys_dir d;
	const char *name;
	unsigned found = 0;

	sys_dir_begin(&d, fd);
	if (depth == SCAN_DEPTH) {
		c->deep = true;
		sys_dir_end(&d);
		return LIBRARIES;
	}
	while ((name = sys_dir_next(&d))) {
		size_t n = strlen(name);
		struct stat st;
		if (len + n + 2 > sizeof c->path || d.type == DT_LNK || (d.type == DT_REG && is_data(name)) ||
		    (d.type != DT_DIR && fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0))
			continue;
		c->path[len] = '/';
		memcpy(c->path + len + 1, name, n + 1);
		if (d.type == DT_DIR || S_ISDIR(st.st_mode)) {
			int sub = is_set_apart(c->path) ? -1 : openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			found |= sub >= 0 ? scan_folder(c, sub, len + 1 + n, depth + 1) : 0;
			c->path[len + 1 + n] = '\0';
		} else if (S_ISREG(st.st_mode) && str_find(str_of(name), ".so")) {
			found |= LIBRARIES;
		} else if (S_ISREG(st.st_mode) && (st.st_mode & 0111) && is_elf(fd, name)) {
			found |= PROGRAMS;
			keep_path(c, len + 1 + n);
		}
	}
	sys_dir_end(&d);
	if (found == PROGRAMS && depth > 0) {
		c->paths.n = mark;
		c->count = marked;
		keep_path(c, len);
	}
	return found;
}

bool view_quiet(struct view *v)
{
	static const char roots[][8] = {"/usr", "/lib", "/lib64", "/lib32", "/libx32"}; /* links are gone past */
	static char paths[SCAN_BYTES];
	struct scan c = {.paths = {paths, 0, sizeof paths, false}};

	if (!find_folders())
		return false;
	for (size_t i = 0; i < countof(roots); i++) {
		int fd = open(roots[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		(void)text_printf(c.path, sizeof c.path, "%s", roots[i]);
		if (fd >= 0)
			(void)scan_folder(&c, fd, strlen(roots[i]), 0);
	}
	if (c.paths.full || c.deep || c.count > MOUNTS_MAX)
		say(v, "too many program files below /usr/lib: the dynamic loader can be told to run one", "");
	size_t done = 0;
	for (size_t i = 0; i < countof(data_folders); i++)
		if (!bind_with(data_folders[i], data_folders[i], MS_NOEXEC) && errno != ENOENT)
			return false;
	for (const char *p = paths; p < paths + c.paths.n && done < MOUNTS_MAX; p += strlen(p) + 1, done++)
		if (!bind_with(p, p, MS_NOEXEC))
			return false;
	return true;
}

/* ---- what may run ---- */

static bool keep_exec(struct view *v, const char *path)
{
	size_t n = strlen(path) + 1;
	if (n > sizeof v->exec - v->exec_n) {
		say(v, "too many programs outside the system's folders are allowed", "");
		return true;
	}
	memcpy(v->exec + v->exec_n, path, n);
	v->exec_n += (uint32_t)n;
	return true;
}

/* Puts folders[at]/name into the folder that is being made at /tmp/<at>. */
static bool place(struct view *v, bool mounts, int at, const char *name, const char *real)
{
	char to[PATH_MAX];
	int fd;

	if (!mounts)
		return keep_exec(v, real);
	if (!text_printf(to, sizeof to, "/tmp/%d/%s", at, name))
		return true; /* nobody can name it */
	if (folder_at(real, (size_t)(strrchr(real, '/') - real)) < 0) /* it finds what belongs to it by its own place */
		return (symlink(real, to) == 0 || errno == EEXIST) && bind_with(real, real, 0) && keep_exec(v, real);
	if ((fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755)) < 0)
		return errno == EEXIST;
	return close(fd) == 0 && bind_with(real, to, 0); /* the folder itself may be on a mount without exec by now */
}

static bool add_path(struct view *v, bool mounts, const char *path, int level);

/* "#!interpreter argument", execve(2). */
static bool add_interpreter(struct view *v, bool mounts, const char *script, int level)
{
	char line[256];
	ssize_t n = sys_read_file(script, line, sizeof line);
	struct str rest = {line + 2, n > 2 ? (size_t)n - 2 : 0}, first, word;

	if (n <= 2 || line[0] != '#' || line[1] != '!' || !str_cut(&rest, '\n', &first) || !str_word(&first, &word))
		return true;
	line[word.p - line + (ssize_t)word.n] = '\0';
	return level == INTERPRETERS || word.p[0] != '/' || add_path(v, mounts, word.p, level + 1);
}

/* One program by its path, as it is in a folder or elsewhere, with what interprets it. */
static bool add_path(struct view *v, bool mounts, const char *path, int level)
{
	char real[PATH_MAX], folder[PATH_MAX], dir[PATH_MAX];
	const char *name = strrchr(path, '/') + 1;
	size_t n = (size_t)(name - path);

	if (!is_program(path) || sys_real_path(path, real) < 0 || !text_printf(folder, sizeof folder, "%.*s", (int)n, path) || sys_real_path(folder, dir) < 0)
		return true; /* it is not there */
	if (is_multi_call(real))
		say(v, name, " is a multi-call program, which can be told to be another one");
	int at = folder_at(dir, strlen(dir));
	bool placed = at >= 0 ? place(v, mounts, at, name, real) : (!mounts || bind_with(real, real, 0)) && keep_exec(v, real);
	return placed && add_interpreter(v, mounts, real, level);
}

/* mounts: into the folders that are being made; without, the paths alone are kept. */
static bool add_all(struct view *v, bool mounts, const struct view_lists *l)
{
	const char *name = names_of(l, VIEW_ALLOWED);
	char path[PATH_MAX];

	if (!add_path(v, mounts, "/bin/sh", 0))
		return false;
	for (uint32_t i = 0; i < l->count[VIEW_ALLOWED]; i++, name += strlen(name) + 1)
		for (size_t k = 0; k < folders.n; k++)
			if (text_printf(path, sizeof path, "%s/%s", folders.path[k], name) && !add_path(v, mounts, path, 0))
				return false;
	return true;
}

bool view_allow(const struct view_lists *l, struct view *v)
{
	char at[24];

	/* the cells' empty /tmp is where the new folders are made, while the old ones can still be seen */
	if (!find_folders() || mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k,nr_inodes=64") < 0)
		return false;
	for (size_t i = 0; i < folders.n; i++) {
		(void)text_printf(at, sizeof at, "/tmp/%zu", i); /* fits */
		if (mkdir(at, 0755) < 0 || mount("tmpfs", at, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m,nr_inodes=4k") < 0)
			return false;
	}
	if (!add_all(v, true, l))
		return false;
	for (size_t i = 0; i < folders.n; i++) {
		(void)text_printf(at, sizeof at, "/tmp/%zu", i); /* fits */
		if (mount(NULL, at, NULL, BOUND | MS_NOEXEC, NULL) < 0 || mount(at, folders.path[i], NULL, MS_MOVE, NULL) < 0)
			return false;
	}
	return umount2("/tmp", MNT_DETACH) == 0;
}

void view_resolve(const struct view_lists *l, struct view *v)
{
	say(v, "without mounts of its own a jail can't keep the dynamic loader from running any program", "");
	if (!find_folders() || !add_all(v, false, l))
		v->exec_n = 0; /* then nothing can be executed */
}

/* ---- what may not ---- */

/* A program's file that is covered; by its inode the other names that it has in the folders are. */
struct cover { dev_t dev; ino_t ino; };

static bool is_forbidden(const struct view_lists *l, const char *name)
{
	const char *p = names_of(l, VIEW_FORBIDDEN);
	for (uint32_t i = 0; i < l->count[VIEW_FORBIDDEN]; i++, p += strlen(p) + 1)
		if (strncmp(name, p, strlen(p)) == 0 && (name[strlen(p)] == '\0' || name[strlen(p)] == '.'))
			return true;
	return false;
}

bool view_forbid(const struct view_lists *l, struct view *v)
{
	static struct cover done[MOUNTS_MAX];
	char path[PATH_MAX], real[PATH_MAX];
	size_t n = 0;

	if (!find_folders())
		return false;
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; i < folders.n; i++) {
			struct sys_dir d;
			const char *name;
			sys_dir_begin(&d, open(folders.path[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC));
			while ((name = sys_dir_next(&d))) {
				struct stat st;
				bool by_name = is_forbidden(l, name), again = false;
				if ((pass == 0 && !by_name && strncmp(name, "busybox", 7) != 0) || !text_printf(path, sizeof path, "%s/%s", folders.path[i], name))
					continue;
				if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || sys_real_path(path, real) < 0)
					continue; /* a broken link, or covered already */
				if (is_multi_call(real) && !is_forbidden(l, strrchr(real, '/') + 1)) {
					say(v, real, " can be told to be a forbidden program");
					continue;
				}
				for (size_t k = 0; k < n; k++)
					again = again || (done[k].dev == st.st_dev && done[k].ino == st.st_ino);
				if (!(pass ? again : by_name) || n == countof(done))
					continue;
				done[n++] = (struct cover){st.st_dev, st.st_ino};
				if (mount("/dev/null", real, NULL, MS_BIND, NULL) < 0) {
					sys_dir_end(&d);
					return false;
				}
			}
			sys_dir_end(&d);
		}
	if (n == countof(done))
		say(v, "more programs are forbidden than can be covered", "");
	return true;
}

/* ---- Landlock ---- */

static int allow_execute(int fd, const char *path)
{
	return sys_landlock_allow(fd, path, SYS_LL_EXECUTE) < 0 && errno != ENOENT && errno != ENOTDIR ? -1 : 0;
}

int view_landlock(int ruleset_fd, const struct view *v, bool in_folders)
{
	for (size_t i = 0; i < countof(loaders); i++)
		if (allow_execute(ruleset_fd, loaders[i]) < 0)
			return -1;
	for (size_t i = 0; in_folders && i < countof(program_folders); i++)
		if (allow_execute(ruleset_fd, program_folders[i]) < 0)
			return -1;
	for (const char *p = v->exec; p < v->exec + v->exec_n; p += strlen(p) + 1)
		if (allow_execute(ruleset_fd, p) < 0)
			return -1;
	return 0;
}

int view_shrink(const char *names, uint32_t count)
{
	static struct view v;
	static struct view_lists l;
	struct sys_ll_ruleset r = {.fs = SYS_LL_EXECUTE};
	const char *end = names;

	for (uint32_t i = 0; i < count; i++)
		end += strlen(end) + 1;
	const uint32_t counts[VIEW_LISTS] = {0, count};
	if (!view_set_lists(&l, names, (size_t)(end - names), counts) || !find_folders() || !add_all(&v, false, &l)) {
		errno = EINVAL;
		return -1;
	}
	int fd = sys_landlock_create(&r, 1);
	int rc = fd < 0 || view_landlock(fd, &v, false) < 0 || sys_landlock_enforce(fd) < 0 ? -1 : 0;
	if (fd >= 0)
		(void)close(fd);
	return rc;
}
