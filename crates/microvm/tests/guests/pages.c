/* A guest that has pages of its own choice and code in them; its first byte says what it does. */
#include "dunlin.h"

#define AT ((unsigned char *)0x50000000)

static int32_t say(int64_t number) { return dunlin_output_write(&number, sizeof number); }

/* mov eax, 42; ret */
static const unsigned char answers[] = {0xb8, 42, 0, 0, 0, 0xc3};
/* mov eax, [0x1234]; ret */
static const unsigned char faults[] = {0x8b, 0x04, 0x25, 0x34, 0x12, 0, 0, 0xc3};

static int32_t (*code(const unsigned char *bytes, size_t length))(void) {
  if (dunlin_vm_map(AT, 4096, DUNLIN_VM_READ_WRITE) != 0) return NULL;
  dunlin_vm_copy(AT, bytes, length);
  if (dunlin_vm_map(AT, 4096, DUNLIN_VM_READ_EXECUTE) != 0) return NULL;
  return (int32_t (*)(void))AT;
}

__attribute__((noreturn, used)) static void caught(uint64_t instruction, uint64_t is_page, uint64_t address) {
  if (instruction != (uint64_t)AT || is_page != 1 || address != 0x1234) dunlin_vm_exit(9);
  dunlin_vm_trap(DUNLIN_VM_ARITHMETIC, "caught it", 9);
}

static volatile uint64_t nowhere = 8;

__attribute__((noreturn, used)) static void fails(void) {
  *(volatile int *)nowhere = 1;
  dunlin_vm_exit(9);
}

/* Handlers come to be as if by a jump: the stack is made a caller's. */
__asm__(
    "catches: and $-16, %rsp\n call caught\n"
    "falls: and $-16, %rsp\n call fails\n");
extern char catches[], falls[];

DUNLIN_HANDLE handle(void) {
  size_t length;
  char *body = dunlin_input(&length);
  if (body == NULL || length == 0) return 2;
  switch (body[0]) {
    case 'z': { /* new pages are zeros, also after they were used before */
      dunlin_vm_map(AT, 8192, DUNLIN_VM_READ_WRITE);
      int64_t seen = AT[0] + AT[8191];
      AT[0] = AT[8191] = 7;
      dunlin_vm_map(AT, 8192, DUNLIN_VM_NONE);
      dunlin_vm_map(AT, 4096, DUNLIN_VM_READ_WRITE);
      return say(seen + AT[0]);
    }
    case 'g': /* what was there stays, what was not is added */
      dunlin_vm_map(AT, 4096, DUNLIN_VM_READ_WRITE);
      AT[1] = 5;
      dunlin_vm_map(AT, 8192, DUNLIN_VM_READ_WRITE);
      return say(AT[1] + AT[4097]);
    case 'x': /* code of its own */
      return say(code(answers, sizeof answers)());
    case 'w': /* which it cannot write */
      code(answers, sizeof answers);
      AT[0] = 0;
      return 0;
    case 'b': /* rights that there are not */
      return say(dunlin_vm_map(AT, 4096, 7));
    case 'o': /* the host's pages */
      return say(dunlin_vm_map(dunlin_vm_this_call, 4096, DUNLIN_VM_READ));
    case 'm': /* more than it may have */
      return say(dunlin_vm_map(AT, (size_t)1 << 31, DUNLIN_VM_READ_WRITE));
    case 'c': /* a fault that it catches */
      if (dunlin_vm_catch(catches, AT, AT + 4096) != 0) return 9;
      return say(code(faults, sizeof faults)());
    case 'f': /* a fault while it catches one */
      if (dunlin_vm_catch(falls, AT, AT + 4096) != 0) return 9;
      return say(code(faults, sizeof faults)());
    case 'h': /* a handler where nothing can be */
      return say(dunlin_vm_catch((void *)0xffff800000000000, AT, AT + 4096));
    case 't': /* a trap that there is not */
      dunlin_vm_trap(77, "", 0);
    case 'l': /* words that it cannot read */
      dunlin_vm_trap(DUNLIN_VM_OTHER, (const char *)nowhere, 5);
    default:
      return 3;
  }
}
