#include <string.h>
#include <zlib.h>

// deflateInit2 is a macro. 31: the largest window, and gzip's header and trailer.
static inline int martlet_gzip_begin(z_stream *stream) {
    memset(stream, 0, sizeof *stream);
    return deflateInit2(stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY);
}
