/* The lines of a script: taking arguments from them and answering. See ../README.md. */
#ifndef SCRIPT_H
#define SCRIPT_H

#include <dunlin.h>
#include <stdbool.h>
#include <stdio.h>

#define LINES_MAX 256
#define BUFFER_BYTES_MAX (1 << 20)

struct bytes {
  unsigned char *at;
  size_t length;
};

/* Buffers live until the invocation ends, which is soon. */
struct line {
  char *rest;
  bool malformed;
  int64_t *results;
  size_t number;
};

static char *take_word(struct line *line) {
  char *word = strsep(&line->rest, " ");
  if (word == NULL || *word == 0) {
    line->malformed = true;
    return NULL;
  }
  return word;
}

static uint64_t result_of(struct line *line, char **at) {
  size_t number = strtoul(*at, at, 10);
  if (number < line->number) return (uint64_t)line->results[number];
  line->malformed = true;
  return 0;
}

static uint64_t take_number(struct line *line) {
  char *at = take_word(line);
  uint64_t value;
  if (at == NULL) return 0;
  if (*at == '$') {
    at++;
    value = result_of(line, &at);
    if (*at == '+') value += strtoull(at + 1, &at, 10);
  } else {
    value = strtoull(at, &at, 10);
  }
  if (*at != 0) line->malformed = true;
  return value;
}

static struct bytes room_for(struct line *line, uint64_t length) {
  struct bytes room = {NULL, 0};
  if (length > BUFFER_BYTES_MAX) line->malformed = true;
  else room.at = (unsigned char *)malloc((size_t)length + 1);
  if (room.at == NULL) line->malformed = true;
  else room.length = (size_t)length;
  return room;
}

static struct bytes take_out(struct line *line) { return room_for(line, take_number(line)); }

static int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static struct bytes take_results(struct line *line, char *at) {
  struct bytes list = room_for(line, 4 * LINES_MAX);
  list.length = 0;
  while (!line->malformed && *at != 0 && list.length < 4 * LINES_MAX) {
    uint32_t handle = (uint32_t)result_of(line, &at);
    memcpy(list.at + list.length, &handle, 4);
    list.length += 4;
    if (*at == ',') at++;
    else if (*at != 0) line->malformed = true;
  }
  return list;
}

static struct bytes take_bytes(struct line *line) {
  struct bytes none = {NULL, 0};
  char *word = take_word(line);
  if (word == NULL) return none;
  if (*word == '@') return take_results(line, word + 1);
  size_t digits = strcmp(word, "-") == 0 ? 0 : strlen(word);
  struct bytes bytes = room_for(line, digits / 2);
  if (digits % 2 != 0) line->malformed = true;
  for (size_t i = 0; i < bytes.length; i++) {
    int high = digit(word[2 * i]), low = digit(word[2 * i + 1]);
    if (high < 0 || low < 0) line->malformed = true;
    bytes.at[i] = (unsigned char)(high * 16 + low);
  }
  if (bytes.at != NULL) bytes.at[bytes.length] = 0;
  return bytes;
}

static struct bytes take_text(struct line *line) { return take_bytes(line); }

static void say(const char *text, size_t length) { dunlin_output_write(text, (int32_t)length); }

/* Whether the line had all the arguments that were taken from it and no more; answers if not. */
static bool taken(struct line *line) {
  if (!line->malformed && line->rest == NULL) return true;
  line->results[line->number] = DUNLIN_E_INVALID;
  say("bad\n", 4);
  return false;
}

static void answer_with(struct line *line, int64_t result, struct bytes bytes) {
  char head[40], *text = (char *)malloc(2 * bytes.length + 2);
  line->results[line->number] = result;
  say(head, (size_t)snprintf(head, sizeof head, "%s %lld ", result < 0 ? "err" : "ok",
                             (long long)result));
  if (text == NULL) abort();
  for (size_t i = 0; i < bytes.length; i++) snprintf(text + 2 * i, 3, "%02x", bytes.at[i]);
  if (bytes.length == 0) strcpy(text, "-");
  say(text, strlen(text));
  say("\n", 1);
  free(text);
}

static void answer(struct line *line, int64_t result) {
  char text[40];
  line->results[line->number] = result;
  say(text, (size_t)snprintf(text, sizeof text, "%s %lld\n", result < 0 ? "err" : "ok",
                             (long long)result));
}

/* Answers with what the call wrote to its buffer. */
static void answer_filled(struct line *line, int64_t result, struct bytes out) {
  if (result < 0) {
    answer(line, result);
    return;
  }
  if ((uint64_t)result < out.length) out.length = (size_t)result;
  answer_with(line, result, out);
}

/* Runs the whole script; `run` does one command. */
static int32_t run_script(void (*run)(struct line *line, const char *name)) {
  static int64_t results[LINES_MAX];
  size_t length = 0;
  char *rest = dunlin_input(&length), *text;
  struct line line = {NULL, false, results, 0};
  if (rest == NULL) return 1;
  while (line.number < LINES_MAX && (text = strsep(&rest, "\n")) != NULL) {
    if (*text == 0) continue;
    line.rest = text;
    line.malformed = false;
    run(&line, strsep(&line.rest, " "));
    line.number++;
  }
  return 0;
}

/* The commands that only touch memory, the same in C and C++; false if this is another. */
static bool touch_memory(struct line *line, const char *name) {
  if (strcmp(name, "peek") == 0) {
    uint64_t at = take_number(line);
    struct bytes out = take_out(line);
    if (!taken(line)) return true;
    memcpy(out.at, (const void *)(uintptr_t)at, out.length);
    answer_filled(line, (int64_t)out.length, out);
    return true;
  }
  if (strcmp(name, "poke") == 0) {
    uint64_t at = take_number(line);
    struct bytes data = take_bytes(line);
    if (!taken(line)) return true;
    memcpy((void *)(uintptr_t)at, data.at, data.length);
    answer(line, (int64_t)data.length);
    return true;
  }
  return false;
}

#endif
