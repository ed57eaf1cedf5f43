/* A function behind a hardware wall: a freestanding program in a micro-VM, for C and C++.
 *
 * The same source as for WebAssembly runs there: include dunlin.h, write DUNLIN_HANDLE handle(void)
 * and, if you like, DUNLIN_INIT init(void), and build a static executable without a C library:
 *   gcc -O2 -static -nostdlib -ffreestanding -fno-pie -no-pie -I sdk/c f.c -o f.elf
 * Deploy it with kind = "reactor" and isolation = "vm". init() runs once, at deploy: its work is in
 * the image that every invocation starts from.
 *
 * Exactly one file of a program includes this header, by itself or through dunlin.h. It brings the
 * program's entry, the functions of memory that compilers call, and an allocator that never gives
 * memory back: an invocation ends before that matters. Programs that bring their own define
 * DUNLIN_VM_NO_MEMORY.
 *
 * To a guest the machine has one port and no devices. What it may not touch ends its call.
 */
#ifndef DUNLIN_VM_H
#define DUNLIN_VM_H

#if !defined(__x86_64__) || !defined(__linux__)
#error "a micro-VM guest is an x86-64 ELF executable"
#endif

#include <stddef.h>
#include <stdint.h>

#include "dunlin_calls.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sixteen megabytes below the stack fault, so that running off it is seen for what it is. */
#define DUNLIN_VM_STACK_BYTES (1u << 20)

/* The page that a call begins with; the host writes it anew for each. */
struct dunlin_vm_call {
  uint64_t version;
  uint64_t input_size;      /* bytes of the request */
  uint64_t input_here;      /* how many of them lie at input_at */
  uint64_t input_at;
  uint64_t output_at;       /* a buffer for the reply, emptied when the call ends */
  uint64_t output_max;
  uint64_t output_used;
  uint64_t log_at;          /* a buffer for log lines: level and length, 4 bytes each, the line */
  uint64_t log_max;
  uint64_t log_used;
  uint64_t now_ns;          /* since 1970, when the call began */
  uint64_t reserved;
  uint8_t random[32];       /* new for each call, and nobody else's */
};

/* The call that runs. Every call writes it, so it lies where the program begins and not past the heap, whose pages have
 * to be made when they are touched. */
__attribute__((weak, section(".data"))) struct dunlin_vm_call *dunlin_vm_this_call;

/* Leaves the machine for its host. Memory is the host's to read and write meanwhile. */
static inline int64_t dunlin_vm_ask(uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                                    uint64_t e, uint64_t f) {
  register uint64_t r10 __asm__("r10") = d;
  register uint64_t r8 __asm__("r8") = e;
  register uint64_t r9 __asm__("r9") = f;
  int64_t result = (int64_t)number;
  __asm__ volatile("outl %%eax, $0xd0"
                   : "+a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(r10), "+r"(r8), "+r"(r9)
                   :
                   : "memory", "rcx", "r11");
  return result;
}

#include "dunlin_vm_calls.h"

/* Copies without a call to the C library. */
static inline void dunlin_vm_copy(void *to, const void *from, size_t length) {
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
}

/* Ends the call with `code`, and waits for the next. The first time, the image is taken here. */
static inline void dunlin_vm_next(int32_t code) {
  int64_t at = dunlin_vm_ask(DUNLIN_VM_NEXT, (uint64_t)(int64_t)code, 0, 0, 0, 0, 0);
  dunlin_vm_this_call = (struct dunlin_vm_call *)at;
}

/* Marks the snapshot point: what was done up to here is not done again. For programs with an entry
 * of their own; it returns once for each invocation. */
static inline void dunlin_ready(void) { dunlin_vm_next(0); }

/* Ends the call at once. */
__attribute__((noreturn)) static inline void dunlin_vm_exit(int32_t code) {
  for (;;) dunlin_vm_ask(DUNLIN_VM_EXIT, (uint64_t)(int64_t)code, 0, 0, 0, 0, 0);
}

/* Adds to the heap, in whole pages; gives its new end, or NULL when there is no memory. */
static inline void *dunlin_vm_grow(size_t bytes) {
  int64_t end = dunlin_vm_ask(DUNLIN_VM_GROW, bytes, 0, 0, 0, 0, 0);
  return end < 0 ? NULL : (void *)end;
}

/* What a page may be used for. None is writable and executable at once. */
enum { DUNLIN_VM_NONE = 0, DUNLIN_VM_READ = 1, DUNLIN_VM_READ_WRITE = 3, DUNLIN_VM_READ_EXECUTE = 5 };

/* Gives whole pages rights, at addresses of the program's own choice: zeros where there was nothing, nothing for
 * DUNLIN_VM_NONE. Gives 0 or a negative error. */
static inline int64_t dunlin_vm_map(void *at, size_t bytes, uint64_t rights) {
  return dunlin_vm_ask(DUNLIN_VM_MAP, (uint64_t)at, bytes, rights, 0, 0, 0);
}

/* Has faults of the instructions from `start` to `end` go on at `handler`, on the same stack, with the instruction in
 * rdi, whether a page was touched in rsi, and its address in rdx. The handler does not return. */
static inline int64_t dunlin_vm_catch(const void *handler, const void *start, const void *end) {
  return dunlin_vm_ask(DUNLIN_VM_CATCH, (uint64_t)handler, (uint64_t)start, (uint64_t)end, 0, 0, 0);
}

/* Kinds of traps. */
enum {
  DUNLIN_VM_UNREACHABLE,
  DUNLIN_VM_OUT_OF_BOUNDS,
  DUNLIN_VM_STACK_OVERFLOW,
  DUNLIN_VM_ARITHMETIC,
  DUNLIN_VM_BAD_CALL,
  DUNLIN_VM_OTHER
};

/* Ends the call as a trap, with words for whoever called. */
__attribute__((noreturn)) static inline void dunlin_vm_trap(uint64_t kind, const char *text, size_t length) {
  for (;;) dunlin_vm_ask(DUNLIN_VM_TRAP, kind, (uint64_t)text, length, 0, 0, 0);
}

static inline int32_t dunlin_input_size(void) {
  return dunlin_vm_this_call == NULL ? 0 : (int32_t)dunlin_vm_this_call->input_size;
}

/* Copies part of the request body. Gives how many bytes were copied. */
static inline int32_t dunlin_input_read(int32_t offset, void *out, int32_t out_length) {
  struct dunlin_vm_call *call = dunlin_vm_this_call;
  if (call == NULL) return 0;
  uint64_t from = (uint32_t)offset, length = (uint32_t)out_length;
  uint64_t rest = from < call->input_size ? call->input_size - from : 0;
  if (length > rest) length = rest;
  if (from + length > call->input_here)
    return (int32_t)dunlin_vm_ask(DUNLIN_VM_INPUT_READ, from, (uint64_t)out, length, 0, 0, 0);
  dunlin_vm_copy(out, (const void *)(call->input_at + from), length);
  return (int32_t)length;
}

/* Adds to the reply. Gives 0, or -1 if it would pass its limit. */
static inline int32_t dunlin_output_write(const void *data, int32_t data_length) {
  struct dunlin_vm_call *call = dunlin_vm_this_call;
  uint64_t length = (uint32_t)data_length;
  if (call == NULL || length > call->output_max - call->output_used)
    return (int32_t)dunlin_vm_ask(DUNLIN_VM_OUTPUT_WRITE, (uint64_t)data, length, 0, 0, 0, 0);
  dunlin_vm_copy((void *)(call->output_at + call->output_used), data, length);
  call->output_used += length;
  return 0;
}

/* Writes one log line. */
static inline void dunlin_log_write(int32_t level, const void *data, int32_t data_length) {
  struct dunlin_vm_call *call = dunlin_vm_this_call;
  uint32_t head[2] = {(uint32_t)level, (uint32_t)data_length};
  uint64_t length = (uint32_t)data_length;
  if (call == NULL || length + sizeof head > call->log_max - call->log_used) {
    dunlin_vm_ask(DUNLIN_VM_LOG_WRITE, (uint32_t)level, (uint64_t)data, length, 0, 0, 0);
    return;
  }
  uint64_t at = call->log_at + call->log_used;
  dunlin_vm_copy((void *)at, head, sizeof head);
  dunlin_vm_copy((void *)(at + sizeof head), data, length);
  call->log_used += sizeof head + length;
}

/* Nanoseconds since 1970, when the call began. */
static inline uint64_t dunlin_vm_now_ns(void) { return dunlin_vm_this_call->now_ns; }

/* Bytes that nobody can guess; other ones in each call, also of the same image. */
static inline const uint8_t *dunlin_vm_random(void) { return dunlin_vm_this_call->random; }

int32_t handle(void);
__attribute__((weak)) int32_t init(void);

/* What the entry calls: init once, then handle for each invocation. */
__attribute__((weak, noreturn, used)) void dunlin_vm_main(void) {
  int32_t code = init == NULL ? 0 : init();
  if (code != 0) dunlin_vm_exit(code);
  for (;;) {
    dunlin_vm_next(code);
    code = handle();
  }
}

__asm__(
    ".weak _start\n"
    ".type _start, @function\n"
    "_start:\n"
    "  xorl %ebp, %ebp\n"
    "  andq $-16, %rsp\n"
    "  call dunlin_vm_main\n"
    "  ud2\n"
    ".size _start, . - _start\n");

#ifndef DUNLIN_VM_NO_MEMORY

__attribute__((weak)) void *memcpy(void *to, const void *from, size_t length) {
  dunlin_vm_copy(to, from, length);
  return to;
}

__attribute__((weak)) void *memmove(void *to, const void *from, size_t length) {
  unsigned char *a = (unsigned char *)to;
  const unsigned char *b = (const unsigned char *)from;
  if ((uintptr_t)a - (uintptr_t)b >= length) {
    dunlin_vm_copy(to, from, length);
    return to;
  }
  while (length-- > 0) {
    a[length] = b[length];
    __asm__ volatile("" : : : "memory"); /* or the compiler makes a call of itself of it */
  }
  return to;
}

__attribute__((weak)) void *memset(void *to, int byte, size_t length) {
  void *at = to;
  __asm__ volatile("rep stosb" : "+D"(at), "+c"(length) : "a"(byte) : "memory");
  return to;
}

__attribute__((weak)) int memcmp(const void *one, const void *two, size_t length) {
  const unsigned char *a = (const unsigned char *)one, *b = (const unsigned char *)two;
  for (size_t i = 0; i < length; i++)
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  return 0;
}

__attribute__((weak)) size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length] != 0) {
    length++;
    __asm__ volatile("" : : : "memory");
  }
  return length;
}

/* Bytes that the heap grows by at least, so that few allocations leave the machine. */
#define DUNLIN_VM_HEAP_STEP ((size_t)256 << 10)

/* The first of the heap is part of the program, so that a small call never leaves the machine for it. */
#define DUNLIN_VM_HEAP_FIRST ((size_t)256 << 10)
__attribute__((weak, aligned(4096))) char dunlin_vm_heap_first[DUNLIN_VM_HEAP_FIRST];
__attribute__((weak, section(".data"))) char *dunlin_vm_heap_at, *dunlin_vm_heap_end;

/* Memory aligned to 16 bytes, after 16 that hold its size. */
__attribute__((weak)) void *malloc(size_t size) {
  size_t need = ((size + 15) & ~(size_t)15) + 16;
  if (need < size) return NULL;
  if (dunlin_vm_heap_at == NULL) {
    dunlin_vm_heap_at = dunlin_vm_heap_first;
    dunlin_vm_heap_end = dunlin_vm_heap_first + DUNLIN_VM_HEAP_FIRST;
  }
  if ((size_t)(dunlin_vm_heap_end - dunlin_vm_heap_at) < need) {
    size_t step = need > DUNLIN_VM_HEAP_STEP ? need : DUNLIN_VM_HEAP_STEP;
    step = (step + 4095) & ~(size_t)4095;
    char *end = (char *)dunlin_vm_grow(step);
    if (end == NULL) return NULL;
    if (dunlin_vm_heap_end != end - step) dunlin_vm_heap_at = end - step;
    dunlin_vm_heap_end = end;
  }
  char *block = dunlin_vm_heap_at;
  dunlin_vm_heap_at += need;
  *(size_t *)block = size;
  return block + 16;
}

__attribute__((weak)) void free(void *block) { (void)block; }

__attribute__((weak)) void *calloc(size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
  void *block = malloc(bytes);
  return block == NULL ? NULL : memset(block, 0, bytes);
}

__attribute__((weak)) void *realloc(void *block, size_t size) {
  size_t old = block == NULL ? 0 : *(size_t *)((char *)block - 16);
  if (block != NULL && size <= old) return block;
  void *next = malloc(size);
  if (next != NULL && block != NULL) dunlin_vm_copy(next, block, old);
  return next;
}

#endif

#ifdef __cplusplus
}
#endif
#endif
