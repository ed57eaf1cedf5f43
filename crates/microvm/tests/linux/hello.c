/* Reads its input, writes it in capitals, and says what it was given. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) fprintf(stderr, "arg %s\n", argv[i]);
    if (getenv("NAME")) fprintf(stderr, "name %s\n", getenv("NAME"));
    int c;
    while ((c = getchar()) != EOF) putchar(toupper(c));
    return argc - 1;
}
