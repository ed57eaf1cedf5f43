// Answers SQL: the request's body is a script, the reply is the rows of its queries.
//
// usage: sqlite [--json]      script on stdin, rows on stdout as CSV (with a header) or as JSON
//
// The database lives in memory and ends with the invocation. A failing statement ends the script:
// its message goes to stderr and the exit code is 1.
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *read_all(FILE *from, size_t *length) {
  size_t capacity = 64 * 1024, used = 0;
  char *text = malloc(capacity);
  while (text != NULL) {
    used += fread(text + used, 1, capacity - used - 1, from);
    if (used < capacity - 1) break;
    capacity *= 2;
    char *larger = realloc(text, capacity);
    if (larger == NULL) free(text);
    text = larger;
  }
  if (text == NULL || ferror(from)) return NULL;
  text[used] = 0;
  *length = used;
  return text;
}

static void put_csv(const char *text) {
  if (strpbrk(text, ",\"\r\n") == NULL) {
    fputs(text, stdout);
    return;
  }
  putchar('"');
  for (; *text; text++) {
    if (*text == '"') putchar('"');
    putchar(*text);
  }
  putchar('"');
}

static void put_json(const char *text) {
  putchar('"');
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\') printf("\\%c", c);
    else if (c < 0x20) printf("\\u%04x", c);
    else putchar(c);
  }
  putchar('"');
}

static const char *column_text(sqlite3_stmt *statement, int column) {
  const char *text = (const char *)sqlite3_column_text(statement, column);
  return text == NULL ? "" : text;
}

static void put_row_csv(sqlite3_stmt *statement) {
  int columns = sqlite3_column_count(statement);
  for (int i = 0; i < columns; i++) {
    if (i > 0) putchar(',');
    put_csv(column_text(statement, i));
  }
  putchar('\n');
}

static void put_row_json(sqlite3_stmt *statement) {
  int columns = sqlite3_column_count(statement);
  putchar('{');
  for (int i = 0; i < columns; i++) {
    if (i > 0) putchar(',');
    put_json(sqlite3_column_name(statement, i));
    putchar(':');
    int type = sqlite3_column_type(statement, i);
    if (type == SQLITE_NULL) fputs("null", stdout);
    else if (type == SQLITE_INTEGER || type == SQLITE_FLOAT) fputs(column_text(statement, i), stdout);
    else put_json(column_text(statement, i));
  }
  putchar('}');
}

static void put_header_csv(sqlite3_stmt *statement) {
  int columns = sqlite3_column_count(statement);
  for (int i = 0; i < columns; i++) {
    if (i > 0) putchar(',');
    put_csv(sqlite3_column_name(statement, i));
  }
  putchar('\n');
}

// Runs one statement to its end; gives SQLite's result code.
static int run_statement(sqlite3_stmt *statement, bool json) {
  bool query = sqlite3_column_count(statement) > 0;
  if (query && json) putchar('[');
  if (query && !json) put_header_csv(statement);
  int result;
  for (long row = 0; (result = sqlite3_step(statement)) == SQLITE_ROW; row++) {
    if (json && row > 0) putchar(',');
    if (json) put_row_json(statement);
    else put_row_csv(statement);
  }
  if (query && json) puts("]");
  return result == SQLITE_DONE ? SQLITE_OK : result;
}

static int run_script(sqlite3 *database, const char *script, bool json) {
  int result = SQLITE_OK;
  while (result == SQLITE_OK && *script) {
    sqlite3_stmt *statement = NULL;
    result = sqlite3_prepare_v2(database, script, -1, &statement, &script);
    if (result == SQLITE_OK && statement != NULL) result = run_statement(statement, json);
    sqlite3_finalize(statement);
  }
  return result;
}

int main(int argc, char **argv) {
  bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
  size_t length;
  char *script = read_all(stdin, &length);
  if (script == NULL) {
    fputs("sqlite: cannot read the script\n", stderr);
    return 1;
  }
  sqlite3 *database = NULL;
  int result = sqlite3_open(":memory:", &database);
  if (result == SQLITE_OK) result = run_script(database, script, json);
  if (result != SQLITE_OK) {
    fflush(stdout);
    fprintf(stderr, "sqlite: %s\n", database ? sqlite3_errmsg(database) : "out of memory");
  }
  sqlite3_close(database);
  free(script);
  return result == SQLITE_OK ? 0 : 1;
}
