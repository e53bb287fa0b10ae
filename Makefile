# SPDX-License-Identifier: GPL-2.0-or-later
#
# make            build/criu-lazy-pages, the link build/criu, the plugin
# make check      what is needed from Debian, the build, every test; ends with the count of tests
# make demo       a real Redis, checkpointed and started again while its memory comes in
# make demo-migration  a runc container moves between two hosts while a client writes to it
# make asan       make check with a sanitized manager (build/asan)
# make bench lint format install uninstall clean distclean
#
# Sources, schemas, tests and manual pages are found by pattern; nothing is listed twice.

# make asan builds the manager and the unit tests once more with B=build/asan. What is checkpointed
# (PROGRAMS), CRIU and the plugin that CRIU loads always come from build/, without sanitizers.
B := build
CC := gcc
CFLAGS := -O2 -g
SANITIZE :=
WARN := -Wall -Wextra -Wconversion -Wno-sign-conversion -Werror
ALL_CFLAGS = -std=gnu11 $(WARN) $(CFLAGS) $(SANITIZE) -D_GNU_SOURCE \
	-Icriu -Iplugins/lazy-pages -Iplugins/page-server -I$(B) -I/usr/include/libnl3
DEPS = -MMD -MP -MF $@.d -MT $@
LDLIBS := -lprotobuf-c -ljson-c -lgnutls -lnl-route-3 -lnl-3 -lpthread

PREFIX := /usr/local
SBINDIR := $(PREFIX)/sbin
MANDIR := $(PREFIX)/share/man
# Where Debian's CRIU looks for plugins unless -L says otherwise; empty: no plugin is installed.
PLUGINDIR := /usr/lib/criu

PROTOS := $(wildcard images/*.proto)
PLUGIN_SRCS := $(wildcard plugins/lazy-pages/plugin*.c)
MAIN_SRCS := $(wildcard criu/main*.c plugins/lazy-pages/main*.c)
LIB_SRCS := $(filter-out $(PLUGIN_SRCS) $(MAIN_SRCS),$(wildcard criu/*.c \
	plugins/lazy-pages/*.c plugins/page-server/*.c))
MANPAGES := $(wildcard man/*.[1-8])
C_FILES := $(wildcard criu/*.[ch] plugins/*/*.[ch] test/zdtm/programs/*.[ch] \
	test/zdtm/unit/*.[ch] test/zdtm/*.[ch])

PB_OBJS := $(PROTOS:images/%.proto=$(B)/images/%.pb-c.o)
PB_HEADERS := $(PB_OBJS:.o=.h)
LIB_OBJS := $(LIB_SRCS:%.c=$(B)/obj/%.o) $(PB_OBJS)
MAIN_OBJS := $(MAIN_SRCS:%.c=$(B)/obj/%.o)
PIC_OBJS := $(LIB_SRCS:%.c=$(B)/pic/%.o) $(PB_OBJS:$(B)/%=$(B)/pic/%)
PLUGIN_OBJS := $(PLUGIN_SRCS:%.c=$(B)/pic/%.o)
UNITS := $(patsubst test/zdtm/unit/%.c,$(B)/test/unit/%,$(wildcard test/zdtm/unit/*.c))
PROGRAMS := $(patsubst test/zdtm/programs/%.c,build/test/programs/%, \
	$(wildcard test/zdtm/programs/*.c))
PLUGIN := $(if $(PLUGIN_SRCS),build/plugins/lazy_pages_plugin.so)
MANAGER := $(if $(MAIN_SRCS),$(B)/criu-lazy-pages $(B)/criu)

# make V=1 shows the commands.
V :=
Q := $(if $(V),,@)
say = @$(if $(V),:,printf '  %-8s%s\n' $(1) $@)

# One jobserver for everything, also when no -j was given.
PARALLEL = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: all manager programs units setup check demo demo-migration asan bench lint format
.PHONY: install uninstall clean distclean FORCE
.SECONDARY:
.DELETE_ON_ERROR:

all: manager $(PLUGIN)
manager: $(MANAGER)
programs: $(PROGRAMS)
units: $(UNITS)

$(B)/criu-lazy-pages: $(MAIN_OBJS) $(B)/liblazy.a
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/criu: $(B)/criu-lazy-pages
	$(Q)ln -sfn criu-lazy-pages $@

$(B)/liblazy.a: $(LIB_OBJS) $(B)/liblazy.list
	$(call say,AR)
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $(LIB_OBJS)

# Changes when a source comes or goes, so that the archive never keeps an object of one that went.
$(B)/liblazy.list: FORCE
	@mkdir -p $(@D)
	@echo $(LIB_OBJS) | cmp -s - $@ || echo $(LIB_OBJS) >$@

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) $(DEPS) -c -o $@ $<

$(B)/images/%.pb-c.c $(B)/images/%.pb-c.h: images/%.proto $(PROTOS)
	@mkdir -p $(@D)
	$(call say,PROTOC)
	$(Q)protoc-c --proto_path=images --c_out=$(B)/images $<

$(B)/images/%.pb-c.o: $(B)/images/%.pb-c.c
	$(call say,CC)
	$(Q)$(CC) -std=gnu11 $(CFLAGS) $(SANITIZE) -I$(B) $(DEPS) -c -o $@ $<

$(LIB_OBJS) $(MAIN_OBJS) $(PIC_OBJS) $(PLUGIN_OBJS): | $(PB_HEADERS)

# The plugin shares a process with CRIU, which has functions of the same names (log_init() is one):
# ours must bind to ours, and only what plugin*.c defines is to be seen from outside.
build/plugins/lazy_pages_plugin.so: $(PLUGIN_OBJS) $(B)/pic/liblazy.a
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -shared \
		-Wl,-Bsymbolic -Wl,--exclude-libs,ALL -Wl,--as-needed -o $@ $^ $(LDLIBS)

$(B)/pic/liblazy.a: $(PIC_OBJS) $(B)/liblazy.list
	$(call say,AR)
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $(PIC_OBJS)

$(B)/pic/images/%.pb-c.o: $(B)/images/%.pb-c.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) -std=gnu11 $(CFLAGS) $(SANITIZE) -fPIC -I$(B) $(DEPS) -c -o $@ $<

$(B)/pic/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(ALL_CFLAGS) -fPIC $(DEPS) -c -o $@ $<

$(B)/test/unit/%: test/zdtm/unit/%.c $(B)/liblazy.a
	@mkdir -p $(@D)
	$(call say,UNIT)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) $(DEPS) -o $@ $< $(B)/liblazy.a -lcmocka $(LDLIBS)

build/test/programs/%: test/zdtm/programs/%.c
	@mkdir -p $(@D)
	$(call say,PROGRAM)
	$(Q)$(CC) -std=gnu11 -Wall -Wextra -Werror -O2 -g -D_GNU_SOURCE $(DEPS) -o $@ $< -lpthread

setup:
	@scripts/setup

check: setup
	+@$(MAKE) --no-print-directory $(PARALLEL) all programs units
	@scripts/check $(B)

asan: setup
	+@$(MAKE) --no-print-directory $(PARALLEL) all programs
	+@$(MAKE) --no-print-directory $(PARALLEL) B=build/asan \
		SANITIZE='-fsanitize=address,undefined -fno-omit-frame-pointer' manager units
	@scripts/check build/asan

demo demo-migration bench: setup
	+@$(MAKE) --no-print-directory $(PARALLEL) all programs
	@scripts/$@

lint:
	@clang-format --dry-run -Werror $(C_FILES)
	@scripts/lint

format:
	@clang-format -i $(C_FILES)

install: all
	install -d $(DESTDIR)$(SBINDIR)
	install -m 755 $(B)/criu-lazy-pages $(DESTDIR)$(SBINDIR)/criu-lazy-pages
ifneq ($(PLUGINDIR),)
	install -d $(DESTDIR)$(PLUGINDIR)
	install -m 755 $(PLUGIN) $(DESTDIR)$(PLUGINDIR)/
endif
	$(foreach m,$(MANPAGES),install -D -m 644 $(m) \
		$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(m)))/$(notdir $(m)) &&) true

uninstall:
	rm -f $(DESTDIR)$(SBINDIR)/criu-lazy-pages
	$(if $(PLUGINDIR),rm -f $(DESTDIR)$(PLUGINDIR)/lazy_pages_plugin.so)
	rm -f $(foreach m,$(MANPAGES),\
		$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(m)))/$(notdir $(m)))

# CRIU stays: it was fetched, not built, and the next build may have no network.
clean:
	$(Q)rm -rf $(filter-out build/criu-sid build/criu-4.1 build/real-criu,$(wildcard build/*))

distclean:
	rm -rf build

-include $(patsubst %,%.d,$(LIB_OBJS) $(MAIN_OBJS) $(PIC_OBJS) $(PLUGIN_OBJS) $(UNITS) $(PROGRAMS))
