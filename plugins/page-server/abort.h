/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The actions abort and confirm: somebody decides what becomes of a source that a page server with
 * --attach stands in front of. Asks it by its control socket, then watches the source itself, which
 * tells more than any answer.
 */
#ifndef ABORT_H
#define ABORT_H

/* @argv[0] is the action's name. The exit status: see criu-lazy-pages-abort(8). */
int abort_main(int argc, char **argv);

#endif
