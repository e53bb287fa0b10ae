// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Configuration files: see config_file.h. A file that is named and missing is no failure, as in
 * stock, but it is remembered so that the log can say so; one that cannot be read is.
 */
#include "config_file.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "compiler.h"

#define GLOBAL_CONFIG "/etc/criu/default.conf"
#define USER_CONFIG   ".criu/default.conf"
#define BLANKS	      " \t\r\n\v\f"

/* Unquotes the word that starts behind the quote at @p, in place. */
static int unquote(char *p, struct error *e)
{
	char *to = p - 1;

	for (; *p != '"'; p++) {
		if (!*p)
			return error_set(e, -EINVAL, "a quote is not closed");
		if (p[0] == '\\' && p[1] == '"')
			p++;
		*to++ = *p;
	}
	*to = 0;
	return 0;
}

int config_parse_line(char *line, char **name, char **value, struct error *e)
{
	char *word = line + strspn(line, BLANKS);
	char *end;

	*name = *value = NULL;
	if (!*word || *word == '#')
		return 0;
	*name = word;
	end = word + strcspn(word, BLANKS "=");
	word = end + strspn(end, BLANKS);
	if (*end == '=')
		word = end + 1;
	else if (!*word || *word == '#')
		word = NULL;
	*end = 0;
	if (!word)
		return 0;
	*value = word;
	if (*word == '"')
		return unquote(word + 1, e);
	word[strcspn(word, BLANKS)] = 0;
	return 0;
}

int config_read(struct options *o, const char *path, enum option_source source, struct error *e)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	_cleanup_free_ char *line = NULL;
	size_t room = 0;

	if (!f && (errno == ENOENT || errno == ENOTDIR))
		return -ENOENT;
	if (!f)
		return error_errno(e, -errno, "configuration file %s", path);
	for (unsigned number = 1; getline(&line, &room, f) >= 0; number++) {
		char *name, *value;
		int ret = config_parse_line(line, &name, &value, e);

		if (!ret && name)
			ret = options_set_by_name(o, name, value, source, e);
		if (ret)
			return error_prefix(e, ret, "%s: line %u", path, number);
	}
	if (ferror(f))
		return error_errno(e, -EIO, "configuration file %s", path);
	return 0;
}

/* @named: somebody asked for this very file. */
static int read_if_there(struct options *o, const char *path, enum option_source source, bool named,
			 struct error *e)
{
	int ret = config_read(o, path, source, e);

	if (ret != -ENOENT)
		return ret;
	if (named)
		o->config_unread = path;
	return 0;
}

int config_read_all(struct options *o, struct error *e)
{
	const char *home = getenv("HOME");
	const char *env = getenv("CRIU_CONFIG_FILE");
	char path[PATH_MAX];
	int ret;

	if (!o->no_default_config && !o->config) {
		ret = read_if_there(o, GLOBAL_CONFIG, FROM_DEFAULT_CONFIG, false, e);
		if (ret)
			return ret;
		if (home &&
		    (size_t)snprintf(path, sizeof(path), "%s/" USER_CONFIG, home) < sizeof(path)) {
			ret = read_if_there(o, path, FROM_DEFAULT_CONFIG, false, e);
			if (ret)
				return ret;
		}
	}
	if (env) {
		ret = read_if_there(o, env, FROM_DEFAULT_CONFIG, true, e);
		if (ret)
			return ret;
	}
	return o->config ? read_if_there(o, o->config, FROM_CONFIG, true, e) : 0;
}
