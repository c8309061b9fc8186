/* Refers to every function of ffi/symbols.txt, by way of the header and of the library. */
#include <stdio.h>
#include <vfio_ferry.h>

typedef void (*any_function)(void);

static const struct { const char *name; any_function function; } symbols[] = {
#define SYMBOL(name) {#name, (any_function)name},
#include "symbols.inc" /* made by tests/c/run */
};

int main(void)
{
    size_t count = sizeof symbols / sizeof *symbols;
    for (size_t i = 0; i < count; i++)
        if (!symbols[i].function)
            return 1;
    printf("%zu symbols, release %s\n", count, vferry_version_text());
    return 0;
}
