#include <uv.h>

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Two calls of Linux whose arguments vary, which Swift cannot make. */

/* This process gets `number` when the thread that started it ends. */
static inline int linux_signal_at_parents_death(int number) {
    return prctl(PR_SET_PDEATHSIG, (unsigned long)number, 0ul, 0ul, 0ul);
}

/* A file without a name, which goes with its last descriptor; -1 when the system has none. */
static inline int linux_memory_file(const char *label) {
    return (int)syscall(SYS_memfd_create, label, 1u);
}
