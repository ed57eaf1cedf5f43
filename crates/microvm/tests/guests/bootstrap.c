// A Lambda runtime in plain C: asks for invocations over one connection, and does what the event says.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROOM (1 << 20)

static char head[16384], body[ROOM], text[ROOM + 4096];
static int api;

static void die(const char *why) {
  perror(why);
  exit(70);
}

static void dial(void) {
  char host[64];
  snprintf(host, sizeof host, "%s", getenv("AWS_LAMBDA_RUNTIME_API"));
  char *port = strchr(host, ':');
  if (!port) die("AWS_LAMBDA_RUNTIME_API");
  *port++ = 0;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  inet_pton(AF_INET, host, &to.sin_addr);
  api = socket(AF_INET, SOCK_STREAM, 0);
  if (api < 0 || connect(api, (struct sockaddr *)&to, sizeof to)) die("connect");
}

static void say(const char *data, size_t size) {
  while (size) {
    ssize_t sent = write(api, data, size);
    if (sent <= 0) die("write");
    data += sent;
    size -= sent;
  }
}

static void says(const char *format, ...) {
  va_list args;
  va_start(args, format);
  int size = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  say(text, size);
}

// The value of a header of the last answer; empty if it has none.
static const char *header(const char *name) {
  static char value[8][2048];
  static int turn;
  char *into = value[turn++ % 8];
  *into = 0;
  for (char *line = strstr(head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n")) {
    size_t size = strlen(name);
    if (!strncasecmp(line + 2, name, size) && line[2 + size] == ':') {
      sscanf(line + 3 + size, " %2047[^\r]", into);
      break;
    }
  }
  return into;
}

// Reads an answer into head and body; its status.
static int answer(void) {
  size_t size = 0;
  while (size < 4 || memcmp(head + size - 4, "\r\n\r\n", 4)) {
    if (size + 1 >= sizeof head || read(api, head + size, 1) != 1) die("head");
    size++;
  }
  head[size] = 0;
  size_t length = atoi(header("Content-Length")), got = 0;
  while (got < length) {
    ssize_t count = read(api, body + got, length - got);
    if (count <= 0) die("body");
    got += count;
  }
  body[got] = 0;
  return atoi(head + 9);
}

static void post(const char *path, const char *headers, const char *data) {
  says("POST /2018-06-01/runtime/%s HTTP/1.1\r\nHost: runtime\r\n%sContent-Length: %zu\r\n\r\n", path,
       headers, strlen(data));
  say(data, strlen(data));
  answer();
}

int main(void) {
  struct timespec born;
  clock_gettime(CLOCK_REALTIME, &born);
  unsigned calls = 0;
  fprintf(stderr, "initialised\n");
  dial();
  if (getenv("INIT_ERROR")) {
    post("init/error", "", "{\"errorType\":\"Test.Init\",\"errorMessage\":\"there is no key\"}");
    return 1;
  }
  if (getenv("INIT_EXIT")) return 9;
  if (getenv("INIT_HANG")) pause();
  for (;;) {
    says("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: runtime\r\n\r\n");
    if (answer() != 200) die("next");
    char path[128], id[64];
    snprintf(id, sizeof id, "%s", header("Lambda-Runtime-Aws-Request-Id"));
    snprintf(path, sizeof path, "invocation/%s/response", id);
    calls++;
    printf("called %u\n", calls);
    fflush(stdout);
    if (strstr(body, "told")) {
      static char told[8192];
      snprintf(told, sizeof told,
               "{\"id\":\"%s\",\"deadline_ms\":%s,\"arn\":\"%s\",\"trace\":\"%s\",\"client\":%s,"
               "\"name\":\"%s\",\"memory\":\"%s\",\"region\":\"%s\",\"root\":\"%s\",\"calls\":%u,"
               "\"born\":%lld%09ld}",
               id, header("Lambda-Runtime-Deadline-Ms"), header("Lambda-Runtime-Invoked-Function-Arn"),
               header("Lambda-Runtime-Trace-Id"), header("Lambda-Runtime-Client-Context"),
               getenv("AWS_LAMBDA_FUNCTION_NAME"), getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
               getenv("AWS_REGION"), getenv("LAMBDA_TASK_ROOT"), calls, (long long)born.tv_sec,
               born.tv_nsec);
      post(path, "", told);
    } else if (strstr(body, "greet")) {
      FILE *file = fopen("/var/task/greeting", "r");
      if (!file || !fgets(text, 64, file)) die("greeting");
      fclose(file);
      char greeting[64];
      snprintf(greeting, sizeof greeting, "%s", text);
      post(path, "", greeting);
    } else if (strstr(body, "fail")) {
      snprintf(path, sizeof path, "invocation/%s/error", id);
      const char *kind = "Lambda-Runtime-Function-Error-Type: Unhandled\r\n";
      post(path, strstr(body, "fail hard") ? kind : "",
           "{\"errorType\":\"Test.Failed\",\"errorMessage\":\"as it was asked\",\"stackTrace\":[]}");
    } else if (strstr(body, "exit")) {
      return 3;
    } else if (strstr(body, "leave")) {
      return 0;
    } else if (strstr(body, "crash")) {
      *(volatile int *)8 = 1;
    } else if (strstr(body, "hang")) {
      pause();
    } else if (strstr(body, "flood")) {
      memset(body, 'x', ROOM - 1);
      post(path, "", body);
    } else if (strstr(body, "print")) {
      for (int line = 0; line < 300; line++) printf("line %d of many\n", line);
      fflush(stdout);
      post(path, "", "\"printed\"");
    } else if (strstr(body, "pieces")) {
      says("POST /2018-06-01/runtime/%s HTTP/1.1\r\nHost: runtime\r\n"
           "Lambda-Runtime-Function-Response-Mode: streaming\r\n"
           "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", path);
      if (answer() != 100) die("continue");
      says("4\r\n\"in \r\n7\r\npieces\"\r\n0\r\n\r\n");
      answer();
    } else {
      post(path, "", body);
    }
  }
}
