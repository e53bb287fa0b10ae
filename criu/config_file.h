/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CRIU's configuration files: one option a line without its dashes, the value behind a blank or
 * '='; in double quotes when it has blanks in it, where \" is a quote; a word that starts with '#'
 * begins a comment. What follows the value on a line is not looked at, as in stock.
 */
#ifndef CRIU_CONFIG_FILE_H
#define CRIU_CONFIG_FILE_H

#include "options.h"

/*
 * Takes one line apart, in place. *@name is NULL when there is no option on it, *@value when the
 * option has no value. -EINVAL: a quote is not closed. Pure.
 */
int config_parse_line(char *line, char **name, char **value, struct error *e);

/* Reads @path into @o. -ENOENT without a text when there is no such file; the caller judges. */
int config_read(struct options *o, const char *path, enum option_source source, struct error *e);

/*
 * Reads what stock would for these options, in its order: /etc/criu/default.conf and
 * $HOME/.criu/default.conf unless @o says otherwise, $CRIU_CONFIG_FILE, and the file of --config.
 */
int config_read_all(struct options *o, struct error *e);

#endif
