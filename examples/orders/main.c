// Takes orders. "take 17" has the same function called again with "book 17", which puts the order
// under a key of its own in durable state; the reply is "taken 17" once the order is safe. An order
// that is booked twice is still one. Error codes: 1 no memory, 2 not an order, 3 not booked.
#include <dunlin.h>
#include <stdio.h>

enum { NO_MEMORY = 1, NO_ORDER = 2, NOT_BOOKED = 3, NAME_BYTES_MAX = 64 };

static const char TAKE[] = "take ", BOOK[] = "book ";

static int begins(const char *text, const char *with) {
  return strncmp(text, with, strlen(with)) == 0;
}

static int is_name(const char *name) {
  size_t length = strlen(name);
  return length > 0 && length < NAME_BYTES_MAX && strspn(name, "0123456789abcdef-") == length;
}

static int32_t say(const char *what, const char *name) {
  char text[NAME_BYTES_MAX + 16];
  int length = snprintf(text, sizeof text, "%s %s\n", what, name);
  return dunlin_output_write(text, (size_t)length) < 0 ? NO_MEMORY : 0;
}

static int32_t take(const char *name) {
  char request[NAME_BYTES_MAX + 16];
  struct dunlin_reply reply;
  int length = snprintf(request, sizeof request, "%s%s", BOOK, name);
  if (dunlin_call("orders", request, (size_t)length, &reply) < 0) return NOT_BOOKED;
  dunlin_reply_free(&reply);
  return say("taken", name);
}

static int32_t book(const char *name) {
  char key[NAME_BYTES_MAX + 16];
  snprintf(key, sizeof key, "orders/%s", name);
  return dunlin_set(key, "booked", strlen("booked")) < 0 ? NOT_BOOKED : say("booked", name);
}

DUNLIN_HANDLE handle(void) {
  size_t length;
  const char *body = dunlin_input(&length);
  if (body == NULL) return NO_MEMORY;
  if (begins(body, TAKE) && is_name(body + strlen(TAKE))) return take(body + strlen(TAKE));
  if (begins(body, BOOK) && is_name(body + strlen(BOOK))) return book(body + strlen(BOOK));
  return NO_ORDER;
}
