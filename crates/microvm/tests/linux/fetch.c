/* Looks a host up, connects to a port of it, says something and prints what comes back. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *found;
    int failed = getaddrinfo(argv[1], argv[2], &hints, &found);
    if (failed) {
        printf("not found: %s\n", gai_strerror(failed));
        return 0;
    }
    int link = socket(found->ai_family, found->ai_socktype, 0);
    if (connect(link, found->ai_addr, found->ai_addrlen)) {
        printf("not connected: %s\n", strerror(errno));
        return 0;
    }
    write(link, "hello\n", 6);
    char buffer[256];
    long count;
    while ((count = read(link, buffer, sizeof buffer)) > 0) fwrite(buffer, 1, count, stdout);
    return argc - 3;
}
