#include "src/base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

/* The lowest free number is taken, so each one is closed when its turn comes; the next may not be
 * looked at before it is open. */
static void hold_standard_files(void)
{
    static const int CONTRARY[] = {O_WRONLY, O_RDONLY, O_RDONLY};
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", CONTRARY[fd]) != fd)
            return; /* no /dev/null: all stays as it is */
}

void qvl_process_init(void)
{
    hold_standard_files();
    signal(SIGXFSZ, SIG_IGN);
}
