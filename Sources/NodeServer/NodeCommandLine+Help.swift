// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Settings

extension NodeCommandLine {
    /// What `-h` prints. Tools look into it for the words of what memcached was built with (`enable-ssl`,
    /// `unix-socket`, `udp`), so what is not here is not named here either.
    static var help: String {
        """
        memcached \(ProductVersion.memcached)
        Martlet \(ProductVersion.martlet), a cache node that speaks memcached's protocols and takes its options.

        Network
          -l, --listen=ADDR[,ADDR…]       where to listen (default: loopback only; -l 0.0.0.0 opens every address)
                                          each [notls:|btls:|mtls:][proto[NAME]:][tag[NAME]:]ADDRESS[:PORT];
                                          an IPv6 address with a port stands in brackets; * is every address
          -p, --port=N                    TCP port (default: 11211; 0: off; -1: any free port)
          -U, --udp-port=N                UDP port (default: 0, off)
          -s, --unix-socket=FILE          listen on a unix socket instead of the network
          -a, --unix-mask=MASK            its access mask, octal (default: 700)
          -b, --listen-backlog=N          queue of connections not accepted yet (default: 1024)
          -B, --protocol=NAME             ascii, binary or auto (default: auto)
          -c, --conn-limit=N              connections at once (default: 1024)
          -R, --max-reqs-per-event=N      requests of one connection before others get their turn (default: 20)
          -t, --threads=N                 threads that serve connections (default: 4)
          -Z, --enable-ssl                TLS; see the ssl_* options below
          -Y, --auth-file=FILE            clients log in with a line of this file (user:password, up to 8 of them)

        Cache
          -m, --memory-limit=MB           memory for items and their index (default: 64)
          -M, --disable-evictions         answer with an error when memory is full, rather than evict
          -I, --max-item-size=SIZE        largest item, with k or m (default: 1m; 1k to 1024m)
          -C, --disable-cas               no CAS values
          -F, --disable-flush-all         refuse flush_all
          -X, --disable-dumping           refuse dumps of keys
          -W, --disable-watch             refuse watch
          -A, --enable-shutdown           allow the shutdown command
          -D CHAR                         what ends a key's prefix; turns statistics by prefix on (default: ":")

        Process
          -d, --daemon                    go into the background
          -P, --pidfile=FILE              write the process's id to a file
          -u, --user=NAME                 become this user, when started by root
          -k, --lock-memory               keep memory from being swapped out
          -r, --enable-coredumps          raise the limit of core files
          -v, --verbose                   say more; -vv also logs at level debug
          -h, --help                      this text
          -i, --license                   the license
          -V, --version                   the version

        -o, --extended=OPTION[,OPTION…]
          maxconns_fast, no_maxconns_fast  whether connections beyond -c are told so and closed (default: they are)
          idle_timeout=SECONDS            close connections without a request for so long (default: 0, never)
          track_sizes                     count items by size for "stats sizes"
          watcher_logbuf_size=KB          buffer of a watcher (default: 256)
          worker_logbuf_size=KB           buffer of a thread's entries for watchers (default: 64)
          no_lru_crawler                  refuse lru_crawler commands
          ssl_chain_cert=FILE             certificate and those that signed it, PEM
          ssl_key=FILE                    private key, if not in that file
          ssl_keyformat=1|2               the key is PEM (1, the default) or DER (2)
          ssl_verify_mode=0|1|2|3         client certificates: none, request, require, require once (default: 0)
          ssl_ca_cert=FILE                who signs client certificates
          ssl_ciphers=LIST                OpenSSL cipher list
          ssl_min_version=0|1|2|3         TLS 1.0, 1.1, 1.2 or 1.3 at least (default: 2)
          ssl_session_cache               keep sessions to resume
          ssl_kernel_tls                  let the kernel encrypt, if it can
          ssl_wbuf_size=KB                TLS output buffer of a connection (default: 16)
        Accepted and without effect, because there are no slabs here: -f, -n, -L, -N, -e and the other -o options of
        memcached.

        Martlet's settings
          --config=FILE                   read settings from a YAML file (or MARTLET_CONFIG)
          --check-config                  say whether all settings are right, and exit
        Each is a key of the file (hotKeys.top), a variable (MARTLET_HOT_KEYS_TOP) and a flag (--hot-keys-top). A flag
        wins over a variable, and that over the file; memcached's options win over all.

        \(NodeConfiguration.schema.help(without: foreignWords))
        """
    }

    /// Settings that stand in the reference only: their values have words by which tools tell what a memcached was
    /// built with.
    private static var foreignWords: Set<String> { ["stream.kafka.security", "stream.kafka.mechanism"] }

    /// What `-i` prints.
    static var license: String {
        """
        Martlet \(ProductVersion.martlet)
        Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0

        """
    }
}
