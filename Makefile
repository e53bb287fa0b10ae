# SPDX-License-Identifier: GPL-2.0-or-later
# Sources, tests and pages are found by pattern; nothing is listed twice.

B := build
CC ?= gcc
WARN := -Wall -Wextra -Wconversion -Wno-sign-conversion -Werror
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=gnu11 $(WARN) $(CFLAGS) -D_GNU_SOURCE -Icriu -Iplugins/lazy-pages -I$(B)
LDLIBS := -lprotobuf-c -ljson-c -lpthread

PROTOS := $(wildcard images/*.proto)
PB_OBJS := $(PROTOS:images/%.proto=$(B)/images/%.pb-c.o)
PLUGIN_SRCS := $(wildcard plugins/lazy-pages/plugin*.c)
MAIN_SRCS := $(wildcard criu/main*.c plugins/lazy-pages/main*.c)
LIB_SRCS := $(filter-out $(PLUGIN_SRCS) $(MAIN_SRCS),$(wildcard criu/*.c plugins/lazy-pages/*.c))
LIB_OBJS := $(LIB_SRCS:%.c=$(B)/%.o) $(PB_OBJS)
MAIN_OBJS := $(MAIN_SRCS:%.c=$(B)/%.o)
UNITS := $(patsubst test/zdtm/unit/%.c,$(B)/test/unit/%,$(wildcard test/zdtm/unit/*.c))
PROGRAMS := $(patsubst test/zdtm/programs/%.c,$(B)/test/programs/%,$(wildcard test/zdtm/programs/*.c))

.PHONY: all programs units clean
all: $(if $(MAIN_SRCS),$(B)/criu-lazy-pages $(B)/criu)
programs: $(PROGRAMS)
units: $(UNITS)

$(B)/criu-lazy-pages: $(MAIN_OBJS) $(B)/liblazy.a
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/criu: $(B)/criu-lazy-pages
	ln -sf criu-lazy-pages $@

$(B)/liblazy.a: $(LIB_OBJS)
	rm -f $@
	$(AR) rcs $@ $^

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/images/%.pb-c.c $(B)/images/%.pb-c.h: images/%.proto
	@mkdir -p $(@D)
	protoc-c --proto_path=images --c_out=$(B)/images $<

$(B)/images/%.pb-c.o: $(B)/images/%.pb-c.c
	$(CC) -std=gnu11 $(CFLAGS) -I$(B) -MMD -MP -c -o $@ $<

$(LIB_OBJS) $(MAIN_OBJS): | $(PROTOS:images/%.proto=$(B)/images/%.pb-c.h)

$(B)/test/unit/%: test/zdtm/unit/%.c $(B)/liblazy.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -MMD -MP -o $@ $< $(B)/liblazy.a -lcmocka $(LDLIBS)

$(B)/test/programs/%: test/zdtm/programs/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -Wall -Wextra -Werror -O2 -g -D_GNU_SOURCE -MMD -MP -o $@ $< -lpthread

clean:
	rm -rf $(B)

-include $(shell find $(B) -name '*.d' 2>/dev/null)
