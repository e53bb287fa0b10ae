// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A restore begins: listens on lazy-pages.socket in the work directory and starts the manager with
 * the listening descriptor, detached, so that CRIU's later connect(2) meets an open door whether or
 * not the manager is through with the images. CRIU does not yet say whether the restore is lazy;
 * the manager leaves when nobody came. In CRIU's thread, before it forks anything (see plugin.h).
 */
#include "plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "compiler.h"

#define SOCKET_NAME  "lazy-pages.socket"
#define LOG_NAME     "lazy-pages.log"
#define MANAGER_NAME "criu-lazy-pages"

/* CRIU leaves out the trailing NUL in the address's length, and so do we. */
static socklen_t socket_address(struct sockaddr_un *addr)
{
	*addr = (struct sockaddr_un){.sun_family = AF_UNIX, .sun_path = SOCKET_NAME};
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(SOCKET_NAME));
}

/*
 * Whether a socket is bound to the file. It must be found out without a connection, for stock's
 * manager takes only one: the kernel looks for the bound socket first, answering ECONNREFUSED when
 * there is none, and then compares the types, answering EPROTOTYPE.
 */
static int socket_in_use(struct error *e)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr;
	socklen_t len = socket_address(&addr);

	if (fd < 0)
		return error_errno(e, -errno, SOCKET_NAME);
	if (!connect(fd, (struct sockaddr *)&addr, len) || errno == EPROTOTYPE)
		return 1;
	if (errno == ENOENT || errno == ECONNREFUSED)
		return 0;
	return error_errno(e, -errno, SOCKET_NAME);
}

/* The listening descriptor, or -EADDRINUSE when there is somebody already. */
static int socket_listen(struct error *e)
{
	_cleanup_close_ int fd = -1;
	struct sockaddr_un addr;
	socklen_t len = socket_address(&addr);
	struct stat st;
	int err, on = 1;

	err = socket_in_use(e);
	if (err)
		return err < 0 ? err : -EADDRINUSE;
	if (!lstat(SOCKET_NAME, &st)) {
		if (!S_ISSOCK(st.st_mode))
			return error_errno(e, -ENOTSOCK, SOCKET_NAME);
		unlink(SOCKET_NAME);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, len))
		return error_errno(e, -errno, SOCKET_NAME);
	/* A connection has it from the listener when it is made, which may be before the manager
	 * runs. */
	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) || listen(fd, 1)) {
		err = error_errno(e, -errno, SOCKET_NAME);
		unlink(SOCKET_NAME);
		return err;
	}
	return steal_fd(&fd);
}

/*
 * The path of CRIU's images directory, for the manager's messages. Where it has none that leads
 * there (it may have been moved, or be in another mount namespace), the descriptor stands for it
 * and is inherited.
 */
static int images_path(int images, char path[PATH_MAX])
{
	char proc[64];
	struct stat by_fd, by_path;
	ssize_t n;

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", images);
	n = readlink(proc, path, PATH_MAX - 1);
	if (n < 0)
		return -errno;
	path[n] = 0;
	if (!fstat(images, &by_fd) && !stat(path, &by_path) && by_fd.st_dev == by_path.st_dev &&
	    by_fd.st_ino == by_path.st_ino)
		return 0;
	strcpy(path, proc);
	return fcntl(images, F_SETFD, 0) ? -errno : 0;
}

/* In the build directory, the manager is one level above the plugin. */
static void beside_plugin(char path[PATH_MAX])
{
	Dl_info info;
	const char *slash;

	path[0] = 0;
	if (!dladdr((void *)manager_start, &info) || !info.dli_fname)
		return;
	slash = strrchr(info.dli_fname, '/');
	if (slash && snprintf(path, PATH_MAX, "%.*s/../" MANAGER_NAME,
			      (int)(slash - info.dli_fname), info.dli_fname) >= PATH_MAX)
		path[0] = 0;
}

/* Returns when there is no manager to execute. */
static void manager_exec(int listen_fd, int restore_fd, char *images)
{
	char listening[16], restore[16], beside[PATH_MAX];
	char *const argv[] = {
		MANAGER_NAME, "lazy-pages", "--listen-fd", listening, "--restore-pidfd",
		restore,      "-D",	    images,	   "-W",      ".",
		"-o",	      LOG_NAME,	    "-v4",	   NULL,
	};
	const char *given = secure_getenv("CRIU_LAZY_PAGES_BIN");

	snprintf(listening, sizeof(listening), "%d", listen_fd);
	snprintf(restore, sizeof(restore), "%d", restore_fd);
	if (given && *given) {
		execv(given, argv);
		return;
	}
	beside_plugin(beside);
	if (*beside)
		execv(beside, argv);
	execv("/usr/local/sbin/" MANAGER_NAME, argv);
	execv("/usr/sbin/" MANAGER_NAME, argv);
	execvp(MANAGER_NAME, argv);
}

static void signals_default(void)
{
	sigset_t none;

	sigemptyset(&none);
	for (int sig = 1; sig <= SIGRTMAX; sig++)
		signal(sig, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * The new process. It keeps two of CRIU's descriptors, and none of them below 3, for CRIU may have
 * been started without some of the standard ones.
 */
static int manager_become(int listen_fd, int restore_fd, int images)
{
	char dir[PATH_MAX];
	int null, err;

	listen_fd = fcntl(listen_fd, F_DUPFD, 3);
	restore_fd = fcntl(restore_fd, F_DUPFD, 3);
	null = open("/dev/null", O_RDWR);
	if (listen_fd < 0 || restore_fd < 0 || null < 0)
		return -errno;
	if (dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
		return -errno;
	if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) || fcntl(listen_fd, F_SETFD, 0) ||
	    fcntl(restore_fd, F_SETFD, 0))
		return -errno;
	err = images_path(images, dir);
	if (err)
		return err;
	signals_default();
	manager_exec(listen_fd, restore_fd, dir);
	return -errno;
}

static int manager_spawn(int listen_fd, int images, struct error *e)
{
	_cleanup_close_ int restore_fd = pidfd_open(getpid(), 0), heard = -1, report = -1;
	int pipe_fds[2], err = 0;
	pid_t pid;

	if (restore_fd < 0 || pipe2(pipe_fds, O_CLOEXEC))
		return error_errno(e, -errno, "starting " MANAGER_NAME);
	heard = pipe_fds[0];
	report = pipe_fds[1];
	pid = fork();
	if (pid < 0)
		return error_errno(e, -errno, "starting " MANAGER_NAME);
	if (!pid) {
		/* A session of its own, and no child of CRIU, which waits for whatever it has. */
		setsid();
		pid = fork();
		if (pid)
			_exit(pid < 0);
		report = fcntl(report, F_DUPFD_CLOEXEC, 3);
		err = manager_become(listen_fd, restore_fd, images);
		_exit(write(report, &err, sizeof(err)) != sizeof(err));
	}
	close(steal_fd(&report));
	while (waitpid(pid, &err, 0) < 0 && errno == EINTR)
		;
	if (err)
		return error_set(e, -EAGAIN, "starting " MANAGER_NAME ": cannot fork");
	/* exec closes the pipe. */
	if (read(heard, &err, sizeof(err)) == sizeof(err))
		return error_errno(e, err, "starting " MANAGER_NAME);
	return 0;
}

int manager_start(int images, bool *started, struct error *e)
{
	_cleanup_close_ int listen_fd = socket_listen(e);
	int err;

	*started = false;
	if (listen_fd == -EADDRINUSE)
		return 0;
	if (listen_fd < 0)
		return listen_fd;
	err = manager_spawn(listen_fd, images, e);
	if (err) {
		unlink(SOCKET_NAME);
		return err;
	}
	plugin_log(LOG_INFO, "the manager is started, its log is " LOG_NAME);
	*started = true;
	return 0;
}

/*
 * A connection that says nothing and ends tells the manager, in the hand-off's own terms, that no
 * task will come. If CRIU has connected before, ours is behind it in the queue or refused.
 */
void manager_dismiss(int work)
{
	_cleanup_close_ int file = -1, fd = -1;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	/* The address has no room for a long path, and the current directory may be another. */
	file = openat(work, SOCKET_NAME, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (file < 0 || fd < 0)
		return;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d", file);
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		plugin_log(LOG_DEBUG, "the restore is over, the manager may leave");
}
