/* As much of a Redis client as the native workers of the benches need: binary, pipelined, and
 * without a copy that can be spared. What fails ends the process. */
#ifndef REDIS_H
#define REDIS_H

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct redis {
  int socket;
  char *out;
  size_t out_used, out_room;
  char *in;
  size_t in_from, in_to, in_room;
};

static inline void fail(const char *why) {
  fprintf(stderr, "worker: %s\n", why);
  exit(1);
}

static inline struct redis redis_connect(const char *host, const char *port) {
  struct redis redis = {socket(AF_INET, SOCK_STREAM, 0), NULL, 0, 0, NULL, 0, 0, 0};
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
  int on = 1;
  inet_pton(AF_INET, host, &address.sin_addr);
  if (connect(redis.socket, (struct sockaddr *)&address, sizeof address) != 0) fail("connect");
  setsockopt(redis.socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return redis;
}

static inline void redis_bytes(struct redis *redis, const void *bytes, size_t length) {
  if (redis->out_used + length > redis->out_room) {
    redis->out_room = (redis->out_used + length) * 2;
    redis->out = (char *)realloc(redis->out, redis->out_room);
    if (redis->out == NULL) fail("no memory");
  }
  memcpy(redis->out + redis->out_used, bytes, length);
  redis->out_used += length;
}

static inline void redis_number(struct redis *redis, char before, uint64_t number) {
  char text[24], *at = text + sizeof text;
  *--at = '\n';
  *--at = '\r';
  do *--at = (char)('0' + number % 10);
  while ((number /= 10) != 0);
  *--at = before;
  redis_bytes(redis, at, (size_t)(text + sizeof text - at));
}

/* Begins a command of so many words. */
static inline void redis_begin(struct redis *redis, size_t words) {
  redis_number(redis, '*', words);
}

static inline void redis_word(struct redis *redis, const void *word, size_t length) {
  redis_number(redis, '$', length);
  redis_bytes(redis, word, length);
  redis_bytes(redis, "\r\n", 2);
}

static inline void redis_text(struct redis *redis, const char *word) {
  redis_word(redis, word, strlen(word));
}

/* Sends what was added. */
static inline void redis_send(struct redis *redis) {
  for (size_t sent = 0; sent < redis->out_used;) {
    ssize_t count = write(redis->socket, redis->out + sent, redis->out_used - sent);
    if (count <= 0) fail("write");
    sent += (size_t)count;
  }
  redis->out_used = 0;
}

static inline void redis_need(struct redis *redis, size_t length) {
  while (redis->in_to - redis->in_from < length) {
    if (redis->in_from + length > redis->in_room) {
      memmove(redis->in, redis->in + redis->in_from, redis->in_to - redis->in_from);
      redis->in_to -= redis->in_from;
      redis->in_from = 0;
      if (length > redis->in_room) redis->in_room = length + 16384;
      redis->in = (char *)realloc(redis->in, redis->in_room);
      if (redis->in == NULL) fail("no memory");
    }
    ssize_t count =
        read(redis->socket, redis->in + redis->in_to, redis->in_room - redis->in_to);
    if (count <= 0) fail("read");
    redis->in_to += (size_t)count;
  }
}

/* The next line, without its end. */
static inline char *redis_line(struct redis *redis) {
  size_t looked = 0;
  for (;;) {
    redis_need(redis, looked + 1);
    char *from = redis->in + redis->in_from;
    size_t there = redis->in_to - redis->in_from;
    char *end = (char *)memchr(from + looked, '\n', there - looked);
    if (end == NULL) {
      looked = there;
      continue;
    }
    end[-1] = 0;
    redis->in_from += (size_t)(end + 1 - from);
    return from;
  }
}

/* Takes a reply that is a number or a status; gives the number. */
static inline int64_t redis_status(struct redis *redis) {
  char *line = redis_line(redis);
  if (line[0] != '+' && line[0] != ':') fail(line);
  return atoll(line + 1);
}

/* Takes a reply of bytes, which stay where they are until the next reply is taken. */
static inline const char *redis_bulk(struct redis *redis, size_t *length) {
  char *line = redis_line(redis);
  int64_t size = atoll(line + 1);
  if (line[0] != '$' || size < 0) fail(line);
  redis_need(redis, (size_t)size + 2);
  const char *bytes = redis->in + redis->in_from;
  redis->in_from += (size_t)size + 2;
  *length = (size_t)size;
  return bytes;
}

static inline void redis_get(struct redis *redis, const char *key) {
  redis_begin(redis, 2);
  redis_text(redis, "GET");
  redis_text(redis, key);
}

static inline void redis_set(struct redis *redis, const char *key, const void *value,
                             size_t length) {
  redis_begin(redis, 3);
  redis_text(redis, "SET");
  redis_text(redis, key);
  redis_word(redis, value, length);
}

/* Says that all is ready, and waits to be told to go. */
static inline void wait_for_go(void) {
  puts("ready");
  fflush(stdout);
  if (getchar() == EOF) exit(1);
}

#endif
