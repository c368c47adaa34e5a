#include <microhttpd.h>
#include <sys/socket.h>

/* The peer's address of a connection; MHD_get_connection_info is variadic, which Swift cannot call. */
static inline const struct sockaddr *martlet_peer_address(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *found = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    return found ? found->client_addr : (const struct sockaddr *)0;
}
