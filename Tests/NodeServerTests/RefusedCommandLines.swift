// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Command lines with the exit code and the words of memcached 1.6.45, taken from runs of it.
let refusedCommandLines: [RefusedCommandLine] = [
    RefusedCommandLine("-c 0", 1, "Maximum connections must be greater than 0\n"),
    RefusedCommandLine("-c -1", 1, "Maximum connections must be greater than 0\n"),
    RefusedCommandLine("-c x", 1, "Maximum connections must be greater than 0\n"),
    RefusedCommandLine("-t 0", 1, "Number of threads must be greater than 0\n"),
    RefusedCommandLine("-t x", 1, "Number of threads must be greater than 0\n"),
    RefusedCommandLine(
        "-B http", 64,
        "Invalid value for binding protocol: http\n -- should be one of auto, binary, or ascii\n"),
    RefusedCommandLine(
        "-B Ascii", 64,
        "Invalid value for binding protocol: Ascii\n -- should be one of auto, binary, or ascii\n"),
    RefusedCommandLine(
        "-l 127.0.0.1:x", 71,
        "Invalid port number: \"x\"\nfailed to listen on one of interface(s) 127.0.0.1:x: Success\n"),
    RefusedCommandLine(
        "-l 127.0.0.1:0x", 71,
        "Invalid port number: \"0x\"\nfailed to listen on one of interface(s) 127.0.0.1:0x: Success\n"),
    RefusedCommandLine(
        "-l notls:127.0.0.1", 71,
        "'notls' option is valid only when SSL is enabled\n",
        "failed to listen on one of interface(s) notls:127.0.0.1: Success\n"
    ),
    RefusedCommandLine(
        "-l btls:127.0.0.1", 71,
        "'btls' option is valid only when SSL is enabled\n",
        "failed to listen on one of interface(s) btls:127.0.0.1: Success\n"
    ),
    RefusedCommandLine(
        "-l mtls:127.0.0.1", 71,
        "'otls' option is valid only when SSL is enabled\n",
        "failed to listen on one of interface(s) mtls:127.0.0.1: Success\n"
    ),
    RefusedCommandLine(
        "-l proto[ascii", 71,
        "Invalid protocol spec: \"[ascii\"\nfailed to listen on one of interface(s) proto[ascii: Success\n"),
    RefusedCommandLine(
        "-l proto[proxy]:127.0.0.1", 71,
        "Server not built with proxy: \"proto[proxy\"\n",
        "failed to listen on one of interface(s) proto[proxy]:127.0.0.1: Success\n"
    ),
    RefusedCommandLine(
        "-l tag[abc", 71,
        "Invalid tag in socket config: \"[abc\"\nfailed to listen on one of interface(s) tag[abc: Success\n"),
    RefusedCommandLine(
        "-l tag[]:127.0.0.1", 71,
        "Listener tags must be between 1 and 8 characters: \"\"\n",
        "failed to listen on one of interface(s) tag[]:127.0.0.1: Success\n"
    ),
    RefusedCommandLine(
        "-l tag[123456789]:127.0.0.1", 71,
        "Listener tags must be between 1 and 8 characters: \"123456789\"\n",
        "failed to listen on one of interface(s) tag[123456789]:127.0.0.1: Success\n"
    ),
    RefusedCommandLine(
        "-l [::1", 71,
        "Invalid IPV6 address: \"[::1\"failed to listen on one of interface(s) [::1: Success\n"),
    RefusedCommandLine("-I 1000", 64, "Item max size cannot be less than 1024 bytes.\n"),
    RefusedCommandLine("-I 256m", 64, "Cannot set item size limit higher than 1/2 of memory max.\n"),
    RefusedCommandLine("-I 2048m", 64, "Item max size cannot be less than 1024 bytes.\n"),
    RefusedCommandLine("-I 1g", 64, "Item max size cannot be less than 1024 bytes.\n"),
    RefusedCommandLine("-I x", 64, "Item max size cannot be less than 1024 bytes.\n"),
    RefusedCommandLine("-m x", 64, "Cannot set item size limit higher than 1/2 of memory max.\n"),
    RefusedCommandLine("-m 0", 64, "Cannot set item size limit higher than 1/2 of memory max.\n"),
    RefusedCommandLine("-m 1", 64, "Cannot set item size limit higher than 1/2 of memory max.\n"),
    RefusedCommandLine("-S", 64, "This server is not built with SASL support.\n"),
    RefusedCommandLine("-o foo", 1, "Illegal suboption \"foo\"\n"),
    RefusedCommandLine("-o foo=bar", 1, "Illegal suboption \"foo=bar\"\n"),
    RefusedCommandLine("-o ,", 1, "Illegal suboption \"\"\n"),
    RefusedCommandLine("-o hashpower", 1, "Missing numeric argument for hashpower\n"),
    RefusedCommandLine("-o hashpower=5", 1, "Initial hashtable multiplier of 5 is too low\n"),
    RefusedCommandLine(
        "-o hashpower=40", 1,
        "Initial hashtable multiplier of 40 is too high\n",
        "Choose a value based on \"STAT hash_power_level\" from a running instance\n"
    ),
    RefusedCommandLine("-o slab_automove=3", 1, "slab_automove must be between 0 and 2\n"),
    RefusedCommandLine("-o slab_automove_ratio", 1, "Missing slab_automove_ratio argument\n"),
    RefusedCommandLine("-o slab_automove_ratio=0", 1, "slab_automove_ratio must be > 0 and < 1\n"),
    RefusedCommandLine("-o slab_automove_window", 1, "Missing slab_automove_window argument\n"),
    RefusedCommandLine("-o slab_automove_window=1", 1, "slab_automove_window must be > 2 and < 1800\n"),
    RefusedCommandLine("-o tail_repair_time", 1, "Missing numeric argument for tail_repair_time\n"),
    RefusedCommandLine("-o tail_repair_time=5", 1, "Cannot set tail_repair_time to less than 10 seconds\n"),
    RefusedCommandLine("-o hash_algorithm", 1, "Missing hash_algorithm argument\n"),
    RefusedCommandLine("-o hash_algorithm=x", 1, "Unknown hash_algorithm option (jenkins, murmur3, xxh3)\n"),
    RefusedCommandLine("-o lru_crawler_sleep", 1, "Missing lru_crawler_sleep value\n"),
    RefusedCommandLine("-o lru_crawler_sleep=9999999", 1, "LRU crawler sleep must be between 0 and 1 second\n"),
    RefusedCommandLine("-o lru_crawler_tocrawl", 1, "Missing lru_crawler_tocrawl value\n"),
    RefusedCommandLine("-o lru_crawler_tocrawl=x", 1, "lru_crawler_tocrawl takes a numeric 32bit value\n"),
    RefusedCommandLine("-o hot_lru_pct", 1, "Missing hot_lru_pct argument\n"),
    RefusedCommandLine("-o hot_lru_pct=80", 1, "hot_lru_pct must be > 1 and < 80\n"),
    RefusedCommandLine("-o warm_lru_pct", 1, "Missing warm_lru_pct argument\n"),
    RefusedCommandLine("-o warm_lru_pct=0", 1, "warm_lru_pct must be > 1 and < 80\n"),
    RefusedCommandLine(
        "-o hot_lru_pct=50,warm_lru_pct=50", 64,
        "hot_lru_pct + warm_lru_pct cannot be more than 80% combined\n"),
    RefusedCommandLine("-o hot_max_factor", 1, "Missing hot_max_factor argument\n"),
    RefusedCommandLine("-o hot_max_factor=0", 1, "hot_max_factor must be > 0\n"),
    RefusedCommandLine("-o warm_max_factor", 1, "Missing warm_max_factor argument\n"),
    RefusedCommandLine("-o warm_max_factor=0", 1, "warm_max_factor must be > 0\n"),
    RefusedCommandLine("-o temporary_ttl", 1, "Missing temporary_ttl argument\n"),
    RefusedCommandLine("-o idle_timeout", 1, "Missing numeric argument for idle_timeout\n"),
    RefusedCommandLine("-o watcher_logbuf_size", 1, "Missing watcher_logbuf_size argument\n"),
    RefusedCommandLine("-o watcher_logbuf_size=x", 1, "could not parse argument to watcher_logbuf_size\n"),
    RefusedCommandLine("-o worker_logbuf_size", 1, "Missing worker_logbuf_size argument\n"),
    RefusedCommandLine("-o worker_logbuf_size=x", 1, "could not parse argument to worker_logbuf_size\n"),
    RefusedCommandLine("-o slab_chunk_max", 1, "Missing slab_chunk_max argument\n"),
    RefusedCommandLine("-o slab_chunk_max=x", 1, "could not parse argument to slab_chunk_max\n"),
    RefusedCommandLine("-o slab_chunk_max=0", 1, "slab_chunk_max must be >= 0\n"),
    RefusedCommandLine("-o slab_chunk_max=5000", 1, "slab_chunk_max must be specified in kilobytes.\n"),
    RefusedCommandLine(
        "-o slab_chunk_max=300", 64,
        "-I (item_size_max: 1048576) must be evenly divisible by slab_chunk_max (bytes: 307200)\n"),
    RefusedCommandLine("-o slab_sizes=10", 64, "slab size 10 is out of valid range\n"),
    RefusedCommandLine(
        "-o slab_sizes=100-90", 64,
        "slab size 90 cannot be lower than or equal to a previous class size\n"),
    RefusedCommandLine(
        "-o slab_sizes=100-104", 64,
        "slab size 104 must be at least 8 bytes larger than previous class\n"),
    RefusedCommandLine("-o ssl_chain_cert", 1, "Missing ssl_chain_cert argument\n"),
    RefusedCommandLine("-o ssl_key", 1, "Missing ssl_key argument\n"),
    RefusedCommandLine("-o ssl_verify_mode", 1, "Missing ssl_verify_mode argument\n"),
    RefusedCommandLine("-o ssl_verify_mode=x", 1, "could not parse argument to ssl_verify_mode\n"),
    RefusedCommandLine("-o ssl_verify_mode=9", 1, "Invalid ssl_verify_mode. Use help to see valid options.\n"),
    RefusedCommandLine("-o ssl_keyformat", 1, "Missing ssl_keyformat argument\n"),
    RefusedCommandLine("-o ssl_keyformat=x", 1, "could not parse argument to ssl_keyformat\n"),
    RefusedCommandLine("-o ssl_ciphers", 1, "Missing ssl_ciphers argument\n"),
    RefusedCommandLine("-o ssl_ca_cert", 1, "Missing ssl_ca_cert argument\n"),
    RefusedCommandLine("-o ssl_wbuf_size", 1, "Missing ssl_wbuf_size argument\n"),
    RefusedCommandLine("-o ssl_wbuf_size=x", 1, "could not parse argument to ssl_wbuf_size\n"),
    RefusedCommandLine("-o ssl_min_version", 1, "Missing ssl_min_version argument\n"),
    RefusedCommandLine("-o ssl_min_version=x", 1, "could not parse argument to ssl_min_version\n"),
    RefusedCommandLine("-o ssl_min_version=9", 1, "Invalid ssl_min_version. Use help to see valid options.\n"),
    RefusedCommandLine("-o read_buf_mem_limit", 1, "Missing read_buf_mem_limit argument\n"),
    RefusedCommandLine("-o read_buf_mem_limit=x", 1, "could not parse argument to read_buf_mem_limit\n"),
    RefusedCommandLine("-o ext_page_size", 1, "Missing ext_page_size argument\n"),
    RefusedCommandLine("-o ext_page_size=x", 1, "could not parse argument to ext_page_size\n"),
    RefusedCommandLine("-o ext_path", 1, "missing argument to ext_path, ie: ext_path=/d/file:5G\n"),
    RefusedCommandLine(
        "-o ext_path=foo", 1,
        "must supply size to ext_path, ie: ext_path=/f/e:64m (M|G|T|P supported)\nfailed to parse ext_path argument\n"),
    RefusedCommandLine("-o ext_max_frag=x", 1, "could not parse argument to ext_max_frag\n"),
    RefusedCommandLine("-o proxy_config=x", 1, "Illegal suboption \"proxy_config=x\"\n"),
    RefusedCommandLine(
        "-o no_lru_maintainer,temporary_ttl=5", 64,
        "temporary_ttl requires lru_maintainer to be enabled\n"),
    RefusedCommandLine("-R 0", 1, "Number of requests per event must be greater than 0\n"),
    RefusedCommandLine("-R x", 1, "Number of requests per event must be greater than 0\n"),
    RefusedCommandLine("-f 1", 1, "Factor must be greater than 1\n"),
    RefusedCommandLine("-f x", 1, "Factor must be greater than 1\n"),
    RefusedCommandLine("-n 0", 1, "Chunk size must be greater than 0\n"),
    RefusedCommandLine("-n x", 1, "Chunk size must be greater than 0\n"),
    RefusedCommandLine("-N 0", 1, "Maximum number of NAPI IDs must be greater than 0\n"),
    RefusedCommandLine("-N 9", 64, "Number of napi_ids(9) cannot be greater than number of threads(4)\n"),
    RefusedCommandLine("-p 70000", 64, "ERROR: Invalid port number 70000.\n"),
    RefusedCommandLine(
        "-p -5", 71,
        "getaddrinfo(): Servname not supported for ai_socktype\nfailed to listen on TCP port -5: Success\n"),
    RefusedCommandLine("-Z -p 0", 64, "ERROR: You cannot enable SSL without a TCP port.\n"),
    RefusedCommandLine(
        "-Y /a -B binary", 64,
        "ERROR: You cannot allow the BINARY protocol while using ascii authentication tokens.\n"),
    RefusedCommandLine("-Y /a -U 11311", 64, "Cannot use UDP with ascii authentication enabled (-U 0 to disable)\n"),
    RefusedCommandLine(
        "-Y /a -l proto[binary]:127.0.0.1:0", 71,
        "Cannot use binary protocol when ascii authentication enabled\n",
        "failed to listen on one of interface(s) proto[binary]:127.0.0.1:0: Success\n"
    ),
    RefusedCommandLine("-q", 1, "memcached: invalid option -- 'q'\nIllegal argument \"?\"\n"),
    RefusedCommandLine("-p", 1, "memcached: option requires an argument -- 'p'\nIllegal argument \"?\"\n"),
    RefusedCommandLine("--nope", 1, "memcached: unrecognized option '--nope'\nIllegal argument \"?\"\n"),
    RefusedCommandLine("--port", 1, "memcached: option '--port' requires an argument\nIllegal argument \"?\"\n"),
    RefusedCommandLine(
        "--daemon=1", 1,
        "memcached: option '--daemon' doesn't allow an argument\nIllegal argument \"?\"\n"),
    RefusedCommandLine(
        "--m 5", 1,
        "memcached: option '--m' is ambiguous; possibilities: ",
        "'--memory-limit' '--max-reqs-per-event' '--max-item-size' '--memory-file'\n",
        "Illegal argument \"?\"\n"
    ),
    RefusedCommandLine("--po", 1, "memcached: option '--port' requires an argument\nIllegal argument \"?\"\n"),
    RefusedCommandLine(
        "--mem 5", 1,
        "memcached: option '--mem' is ambiguous; possibilities: '--memory-limit' '--memory-file'\n",
        "Illegal argument \"?\"\n"
    ),
]
