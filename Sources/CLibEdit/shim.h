#include <stdio.h>

#include <editline/readline.h>

/* Bytes of the line that is being edited: a variable of the library, which Swift does not let anybody share. */
static inline int edited_length(void) { return rl_end; }
