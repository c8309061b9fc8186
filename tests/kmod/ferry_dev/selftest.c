// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs every test in a process of its own, with a time limit; all of them, or
 * those whose name holds the argument. The module must be loaded.
 */
#include <sys/stat.h>
#include <sys/wait.h>

#include "selftest.h"

#define TEST_SECONDS_MAX 300	/* with KASAN under emulation, storms take two minutes */

static int failed, passed;

static void run(const struct test *t, const char *only)
{
	double start = now();
	int status;
	pid_t pid;

	if (only && !strstr(t->name, only))
		return;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		alarm(TEST_SECONDS_MAX);
		t->run();
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	dev_remove_all();
	if (status)
		failed++;
	else
		passed++;
	printf("%s %s (%.2f s)\n", status ? "FAIL" : "ok  ", t->name, now() - start);
}

int main(int argc, char **argv)
{
	const struct test *suites[] = { stream_tests, precopy_tests, fd_tests,
					reset_tests, fault_tests };
	const struct test *t;
	size_t i;

	for (i = 0; i < sizeof(suites) / sizeof(*suites); i++)
		for (t = suites[i]; t->name; t++)
			run(t, argc > 1 ? argv[1] : NULL);
	printf("ferry_dev selftest: %d passed, %d failed\n", passed, failed);
	return failed || !passed;
}
