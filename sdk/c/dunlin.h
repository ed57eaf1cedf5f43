/* The calls between a reactor function and its node, for C and C++.
 *
 * A reactor is a core WebAssembly module that exports
 *   handle            run once for every invocation, in a fresh sandbox;
 *   init  (optional)  run once, at deploy: its work is part of the image every invocation starts from.
 * Write them with DUNLIN_HANDLE and DUNLIN_INIT. Both give 0 for success and the function's own
 * error code otherwise. Compile with:
 *   clang --target=wasm32-wasi -mexec-model=reactor -I sdk/c ...
 */
#ifndef DUNLIN_H
#define DUNLIN_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DUNLIN_IMPORT(name) __attribute__((import_module("dunlin"), import_name(name)))
#define DUNLIN_HANDLE __attribute__((export_name("handle"))) int32_t
#define DUNLIN_INIT __attribute__((export_name("init"))) int32_t

enum dunlin_level {
  DUNLIN_ERROR = 0,
  DUNLIN_WARN = 1,
  DUNLIN_INFO = 2,
  DUNLIN_DEBUG = 3,
};

/* Bytes in the request's body. */
DUNLIN_IMPORT("input_size") int32_t dunlin_input_size(void);

/* Copies at most `length` bytes of the body, from `offset` on, to `to`; gives the count copied. */
DUNLIN_IMPORT("input_read")
int32_t dunlin_input_read(int32_t offset, void *to, int32_t length);

/* Appends to the reply. Gives 0, or -1 when the reply would pass the output limit. */
DUNLIN_IMPORT("output_write") int32_t dunlin_output_write(const void *from, int32_t length);

/* Writes one line to the function's log. */
DUNLIN_IMPORT("log_write")
void dunlin_log_write(int32_t level, const void *from, int32_t length);

/* The whole body in memory from malloc, with a zero byte after it; NULL when there is no memory. */
static inline char *dunlin_input(size_t *length) {
  int32_t size = dunlin_input_size();
  char *body = (char *)malloc((size_t)size + 1);
  if (body == NULL) return NULL;
  int32_t count = dunlin_input_read(0, body, size);
  body[count] = 0;
  *length = (size_t)count;
  return body;
}

#ifdef __cplusplus
}
#endif
#endif
