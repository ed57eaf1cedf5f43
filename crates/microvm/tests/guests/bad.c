/* Guests that try to do harm, or fail badly: what the first byte of the input says. */
#include "dunlin.h"

static volatile uint64_t data[512] = {1};
static const uint64_t constants[8] = {7};
static char zeros[64 << 20];

/* The first row of the table that the test offers: it never answers. */
static uint32_t dunlin_wait_number(void) { return 0x74339523u; }

static int64_t ask(uint32_t number, uint64_t a, uint64_t b, uint64_t c) {
  return dunlin_vm_ask(number, a, b, c, 0, 0, 0);
}

static void touch(uint64_t address) { *(volatile uint64_t *)address = 1; }

static __attribute__((noinline)) int deeper(volatile int depth) { return deeper(depth + 1) + depth; }

static void privileged(int which) {
  switch (which) {
    case '0': __asm__ volatile("hlt"); break;
    case '1': __asm__ volatile("cli"); break;
    case '2': __asm__ volatile("wrmsr" : : "c"(0xc0000082), "a"(0), "d"(0)); break;
    case '3': __asm__ volatile("mov %%rax, %%cr3" : : "a"(0)); break;
    case '4': __asm__ volatile("lidt (%0)" : : "r"(data)); break;
    case '5': __asm__ volatile("outb %%al, $0x64" : : "a"(0xfe)); break;
    case '6': __asm__ volatile("mov %%rax, %%dr7" : : "a"(0x400)); break;
    case '7': __asm__ volatile("invd"); break;
    case '8': __asm__ volatile("iretq"); break;
    case '9': __asm__ volatile("int $14"); break;
    case 'a': __asm__ volatile("mov %0, %%ss" : : "r"(0x10)); break;
    case 'b': __asm__ volatile("ltr %0" : : "r"((uint16_t)0x28)); break;
    case 'c': __asm__ volatile("swapgs"); break;
    case 'd': __asm__ volatile("xsetbv" : : "c"(0), "a"(1), "d"(0)); break;
  }
}

static void ports(int which) {
  static char many[1 << 16];
  switch (which) {
    case '0': __asm__ volatile("outb %%al, $0xd0" : : "a"(1)); break;
    case '1': __asm__ volatile("outw %%ax, $0xd0" : : "a"(1)); break;
    case '2': __asm__ volatile("inl $0xd0, %%eax" : : : "eax"); break;
    case '3': __asm__ volatile("rep insl" : : "d"(0xd0), "D"(many), "c"(1 << 14) : "memory"); break;
    case '4': __asm__ volatile("rep outsl" : : "d"(0xd0), "S"(many), "c"(-1l) : "memory"); break;
    case '5': __asm__ volatile("rep outsl" : : "d"(0xd0), "S"(8l), "c"(1l << 40) : "memory"); break;
    case '6': __asm__ volatile("outl %%eax, %%dx" : : "a"(0), "d"(0xd1)); break;
    case '7': __asm__ volatile("outl %%eax, %%dx" : : "a"(0), "d"(0xffff)); break;
    case '8': __asm__ volatile("outl %%eax, $0xd8" : : "a"(0)); break;
  }
}

/* Addresses and lengths at every boundary that there is. */
static int boundaries(void) {
  static const uint64_t addresses[] = {0, 1, 4095, 4096, 0x400000, 0x400fff, (uint64_t)-1,
      (uint64_t)-4096, 1ull << 47, 0x1efe00000, 0x1f0000000, 0x1ffffffff, 0x200000000, 1ull << 63};
  static const uint64_t lengths[] = {0, 1, 4096, 4097, 1ull << 31, 1ull << 32, 1ull << 62, (uint64_t)-1};
  (void)constants;
  unsigned which = (unsigned)dunlin_vm_this_call->random[0] |
                   (unsigned)dunlin_vm_this_call->random[1] << 8;
  uint64_t address = addresses[which % 14], length = lengths[which / 14 % 8];
  switch (which / 112 % 4) {
    case 0: ask(DUNLIN_VM_INPUT_READ, 0, address, length); break;
    case 1: ask(DUNLIN_VM_OUTPUT_WRITE, address, length, 0); break;
    case 2: ask(DUNLIN_VM_LOG_WRITE, 0, address, length); break;
    case 3: dunlin_vm_ask(0x6d201139u, address, length, address, length, 0, 0); break;
  }
  return 0;
}

DUNLIN_HANDLE handle(void) {
  char what[3] = {0};
  dunlin_input_read(0, what, 2);
  switch (what[0]) {
    case 'e': return dunlin_output_write("fine", 4);
    case 'p': privileged(what[1]); return 0;
    case 'o': ports(what[1]); return 0;
    case 'b': return boundaries();
    case 'c': touch((uint64_t)handle); return 0;
    case 'k': touch((uint64_t)constants); return 0;
    case 'j': ((void (*)(void))(uint64_t)data)(); return 0;
    case '0': touch(0); return 0;
    case 'u': touch(0x70000000); return 0;
    case 's': touch(0x1ffe01000); return 0;
    case 'x': touch(0x8000000000000000); return 0;
    case 'y': touch(0xffffffff81000000); return 0;
    case 'r': return deeper(0);
    case 'l': for (;;) data[0]++;
    case 'd': /* everything dirty */
      for (size_t i = 0; i < sizeof zeros; i += 4096) {
        if (zeros[i] != 0) return 9;
        zeros[i] = 1;
      }
      return dunlin_output_write("fine", 4);
    case 'S': /* a stack that is nowhere, then a fault */
      __asm__ volatile("movq $8, %rsp; push %rax");
      return 0;
    case 'X': return (int32_t)ask(0x12345678, 0, 0, 0);
    case 'U': /* counters of its buffers that lie */
      dunlin_vm_this_call->output_used = (uint64_t)-1;
      return 0;
    case 'V':
      dunlin_vm_this_call->log_used = 1ull << 40;
      return 0;
    case 'L': /* a log that ends in the middle of a line */
      dunlin_vm_this_call->log_used = 20;
      *(uint32_t *)(dunlin_vm_this_call->log_at + 4) = 0xffffffff;
      return dunlin_output_write("fine", 4);
    case 'Y': __asm__ volatile("syscall" : : "a"(60) : "rcx", "r11", "memory"); return 0;
    case 'G':
      for (;;)
        if (dunlin_vm_grow((size_t)-1) != NULL || dunlin_vm_grow((size_t)1 << 62) != NULL) return 9;
        else return dunlin_output_write("fine", 4);
    case 'w': /* waits in a host call */
      return (int32_t)dunlin_vm_ask(dunlin_wait_number(), 0, 0, 0, 0, 0, 0);
  }
  return 1;
}
