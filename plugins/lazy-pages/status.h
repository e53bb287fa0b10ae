/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `criu-lazy-pages status`: asks the managers of this machine how far they are (see control.h). */
#ifndef STATUS_H
#define STATUS_H

/* The whole command; @argv[0] is "status". Returns the exit code: 0, 1 (nobody there), 2 (usage).
 */
int status_main(int argc, char **argv);

#endif
