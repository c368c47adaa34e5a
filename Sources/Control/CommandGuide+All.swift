// Martlet
// SPDX-License-Identifier: Apache-2.0

extension CommandGuide {
    /// Every command, in the order of the help.
    static let all: [CommandGuide] = serving + rows + streams + routes

    private static let serving = [
        CommandGuide(
            name: "drain", forms: ["[--wait] [--timeout=SECONDS]"],
            summary: "take a server out of service, without an error for anybody",
            text: [
                "The node or router is no longer ready (/readyz says 503) and leaves the members of its fleet, but "
                    + "serves everybody who still comes. It does not go back: end it afterwards, or start it anew.",
                "With --wait the command returns when nobody has asked for a second, or when the time is over: that "
                    + "is no error, as clients are told to go and not made to.",
                "Where the server has an admin token, it is needed; otherwise this works on the server's own machine "
                    + "only.",
            ],
            options: ["node", "token-file", "wait", "timeout"],
            examples: [
                Example("drain", "The node of this machine"),
                Example("drain --wait --timeout=30", "Before a restart: wait until its clients have gone"),
                Example("drain --node=http://127.0.0.1:9151", "A router"),
            ],
            json: "{\"phase\":\"draining\", \"drained\":true, \"remainingDelayMilliseconds\":0, \"connections\":2, "
                + "\"active\":0, \"datagrams\":false}"),
        CommandGuide(
            name: "top", forms: ["[HOST:PORT ...] [--interval=SECONDS] [--count=N] [--wide]"],
            summary: "nodes and routers side by side, as they change",
            text: [
                "Asks the admin ports for what they did since the last look, and shows a line each: reads and writes "
                    + "a second, hits, the time that 99% of the commands stayed under, memory, what was shed. Columns "
                    + "that do not fit into 80 (or $COLUMNS) are left out; --wide shows all.",
                "Reasons why a server is not simply serving stand below the table.",
            ],
            options: ["node", "interval", "count", "wide"],
            examples: [
                Example("top", "The node of this machine, until ended by Ctrl-C"),
                Example("top 10.0.0.1:9150 10.0.0.2:9150 10.0.0.9:9151", "Two nodes and a router"),
                Example("top --count=1 --interval=10 --json", "One sample over ten seconds, for a program"),
            ],
            json: "{\"servers\":[{\"server\":..., \"role\":\"node\", \"state\":\"serving\", \"reason\":null, "
                + "\"readsPerSecond\":..., \"hitRatio\":0.97, \"p99Microseconds\":200, ...}]}, an object for each table"
        ),
        CommandGuide(
            name: "members", forms: ["SOURCE [--watch]"],
            summary: "who is in a fleet, by DNS, etcd, Kubernetes or a file",
            text: [
                "Asks what a router would ask, and prints name, address, weight and zone of each member. Use it to "
                    + "see whether a source says what a router should hear.",
                "Sources: dns+HOST:PORT, dnssrv+NAME, etcd://HOST:PORT/PREFIX, k8s:///NAMESPACE/SERVICE, file:PATH, "
                    + "or HOST:PORT of the members themselves.",
            ],
            options: ["watch", "dns", "ca"],
            examples: [
                Example("members dnssrv+_memcached._tcp.cache.example.org", "By SRV records"),
                Example("members etcd://127.0.0.1:2379/martlet/main --watch", "Each change in etcd, until ended"),
                Example("members file:members.txt", "By a file"),
            ],
            json:
                "{\"epoch\":3, \"members\":[{\"name\":..., \"host\":..., \"zone\":..., \"port\":11211, "
                + "\"weight\":1.0}]}"
        ),
    ]

    private static let rows = [
        CommandGuide(
            name: "dump", forms: ["--output=FILE [--prefix=TEXT] [--resume]"],
            summary: "every row of a node's store, into a file",
            text: [
                "Reads through the node's admin port while the node serves. The file holds keys and values in the "
                    + "clear and is its owner's only: keep it like the data. It has checksums, and a file that is cut "
                    + "or damaged is refused later.",
                "Rows of the store that are damaged are left out and listed in FILE.damaged, with their places and "
                    + "the hashes of their keys; the exit code is 74 then, and the file has all others.",
                "Needs the node's admin token.",
            ],
            options: ["node", "token-file", "output", "prefix", "resume"],
            examples: [
                Example("dump --output=rows.dump --token-file=token", "All rows"),
                Example("dump --output=rows.dump --token-file=token --resume", "Go on after an interruption"),
                Example("dump --output=users.dump --prefix=user: --token-file=token", "Keys that begin with user:"),
            ],
            json: "{\"rows\":3001, \"bytes\":181240}"),
        CommandGuide(
            name: "restore",
            forms: ["--input=FILE [--server=HOST:PORT] [--resume]", "--from=DIR --to=DIR [--id=N]"],
            summary: "a dump through a node, or a backup into a new directory",
            text: [
                "With --input, the rows of a dump are written through a node (any server of memcached's protocol) "
                    + "with their flags and what is left of their time; versions are given anew.",
                "How far it is stands in FILE.restored; --resume goes on from there. It is refused where the rows "
                    + "before the place are not those that were written, or the server is not the one that has them: "
                    + "another store, a store that came back from a backup, or a cache that was started again.",
                "With --from, a backup of an embedded store becomes a data directory: the newest, or the one that "
                    + "--id names. The directory must be new or empty; start a node on it with --storage-path.",
            ],
            options: ["input", "server", "resume", "from", "to", "id"],
            examples: [
                Example("restore --input=rows.dump --server=127.0.0.1:11211", "A dump into a node"),
                Example("restore --from=/var/backups/martlet --to=/var/lib/restored", "The newest backup"),
                Example("restore --from=/var/backups/martlet --id=3 --to=/var/lib/old", "An older one"),
            ],
            json: "{\"rows\":3001, \"expired\":2, \"bytes\":181240}, or {\"restored\":true}"),
        CommandGuide(
            name: "backup", forms: ["--to=DIR [--keep=N]"],
            summary: "a backup of a node's RocksDB, by the node itself",
            text: [
                "The node writes into a directory of its own machine while it serves; files that an earlier backup "
                    + "there has are shared. Keep the directory on another disk, and copy it away.",
                "With --keep the oldest are removed once the new one is whole, so that N are left, with the files "
                    + "that no other needs. Without it all are kept.",
                "Needs the node's admin token. `restore --from` takes one back.",
            ],
            options: ["node", "token-file", "to", "keep"],
            examples: [
                Example("backup --to=/var/backups/martlet --token-file=token", "A backup now"),
                Example("backup --to=/var/backups/martlet --keep=7 --token-file=token", "Daily: a week of them"),
            ],
            json: "{\"backup\":true}"),
        CommandGuide(
            name: "backup list", forms: ["--from=DIR"],
            summary: "the backups in a directory of this machine",
            text: [
                "A line for each, the oldest first: its id for `restore --id` and `backup verify --id`, when it was "
                    + "made, and its size with the files that it shares with others. Works without a node; not while "
                    + "one is making a backup there."
            ],
            options: ["from"],
            examples: [Example("backup list --from=/var/backups/martlet", "What there is")],
            json: "{\"backups\":[{\"id\":3, \"made\":\"2026-01-05T10:00:00Z\", \"bytes\":181240, \"files\":9}]}"),
        CommandGuide(
            name: "backup verify", forms: ["--from=DIR [--id=N]"],
            summary: "read a backup through, without restoring it",
            text: [
                "Compares every file of the newest backup, or of the one that --id names, with the length and the "
                    + "checksum that were written down when it was made. The exit code is 65 when one is missing or "
                    + "damaged. Works without a node."
            ],
            options: ["from", "id"],
            examples: [
                Example("backup verify --from=/var/backups/martlet", "The newest"),
                Example("backup verify --from=/var/backups/martlet --id=3", "An older one"),
            ],
            json: "{\"verified\":3, \"bytes\":181240}"),
        CommandGuide(
            name: "warm", forms: ["[--prefix=TEXT] [--limit=N] [--rate=N]"],
            summary: "rows of a node's store, into its cache",
            text: [
                "Has the node read rows before clients ask for them: after a cold start, or before traffic is sent "
                    + "to it. The rate keeps the store free for others.",
                "Needs the node's admin token.",
            ],
            options: ["node", "token-file", "prefix", "limit", "rate"],
            examples: [
                Example("warm --prefix=user: --rate=20000 --token-file=token", "Users, 20,000 a second"),
                Example("warm --limit=100000 --token-file=token", "The first 100,000 rows"),
            ],
            json: "{\"rows\":100000}"),
        CommandGuide(
            name: "storage init", forms: ["[--url=URL] [--capture=on|off]"],
            summary: "the tables of a PostgreSQL database, where missing",
            text: [
                "Makes what a node with storage.backend postgres needs, and what an earlier version lacked. It may "
                    + "be run again; it removes nothing. The user of the URL must be allowed to create tables.",
                "With --capture=on, triggers put the changes that other programs make to martlet_kv into the stream, "
                    + "so that nodes with a region drop what they have cached. At least one node must have a region: "
                    + "nobody else takes the records out of their table. --capture=off takes the triggers away.",
                "$MARTLET_STORAGE_URL keeps the password out of the list of processes.",
            ],
            options: ["url", "capture"],
            examples: [
                Example("storage init --url=postgresql://martlet@db.example/cache", "By a URL"),
                Example("storage init", "By $MARTLET_STORAGE_URL"),
                Example("storage init --capture=on", "With changes that go around the cache"),
            ],
            json: "{\"initialised\":true}"),
    ]

    private static let streams = [
        CommandGuide(
            name: "stream status", forms: [""],
            summary: "how the stream between regions goes at a node",
            text: [
                "Prints what `stats stream` does, a figure a line: whether copies are shown (trusted), the lag, what "
                    + "was dropped, gaps, quarantines; at the source, who follows it and how far behind he is."
            ],
            options: ["node"],
            examples: [
                Example("stream status", "The node of this machine"),
                Example("stream status --node=http://10.1.0.5:9150 --json", "Another one, for a program"),
            ],
            json: "an object with a member for each figure, numbers as numbers: {\"role\":\"follower\", "
                + "\"trusted\":\"yes\", ...}"),
        CommandGuide(
            name: "stream tail", forms: ["[--begin=WHERE] [--cursor-file=FILE] [--once]"],
            summary: "the changes of a home region, as they come",
            text: [
                "Prints a line for each record of the stream of a node of the home region: when it was committed, what "
                    + "was done, slot, number, version and key (percent-encoded). Records that are not kept any more, "
                    + "and another epoch, have lines of their own. Values are not shown.",
                "With --cursor-file it goes on where it was, each record once or twice and none left out as long as "
                    + "they are kept.",
                "Needs the node's admin token.",
            ],
            options: ["node", "token-file", "begin", "cursor-file", "count", "once"],
            examples: [
                Example("stream tail --token-file=token", "What is changed from now on, until ended"),
                Example("stream tail --begin=kept --once --token-file=token", "Everything that is kept"),
                Example("stream tail --count=10 --token-file=token", "The next ten changes"),
                Example("stream tail --json --cursor-file=place --token-file=token", "For a program, to be resumed"),
            ],
            json: "a line for each record: {\"op\":\"set\", \"key\":\"user%3A1\", \"pool\":..., \"version\":..., "
                + "\"exp_ms\":0, \"region\":..., \"source\":..., \"epoch\":1, \"slot\":17, \"seq_first\":4, "
                + "\"seq\":4, \"ts_ms\":..., \"reason\":\"write\"}; op is lost, reset or damaged where records are "
                + "missing"),
        CommandGuide(
            name: "audit", forms: ["HOST:PORT ... [--after=SECONDS] [--for=SECONDS] [--rate=N]"],
            summary: "whether nodes show copies that are older than changes",
            text: [
                "Reads the stream of a node of the home region (--node), and some seconds after each change looks at "
                    + "the copies that the nodes named have of its key. Only the cache is asked, as `me` does: nothing "
                    + "is read from a store, and no copy counts as read.",
                "A copy with an older version than the change is stale; the exit code is 65 then, and the report names "
                    + "the first hundred. Versions of clients' own in plain caches say nothing, and are counted apart. "
                    + "Ask behind the bound of staleness (stream.lagBound): before it, an older copy is allowed.",
                "Needs the admin token of the home region's node.",
            ],
            options: ["node", "token-file", "after", "for", "rate", "begin"],
            examples: [
                Example("audit 10.2.0.1:11211 10.2.0.2:11211 --token-file=token", "Two nodes, now"),
                Example("audit 10.2.0.1:11211 --after=10,60 --for=300 --json", "For a program"),
                Example("audit 10.2.0.1:11211 --begin=kept --for=5", "Changes that are over, too"),
            ],
            json: "{\"records\":1201, \"skipped\":0, \"windows\":[{\"afterSeconds\":1, \"checks\":1201, \"stale\":0, "
                + "\"absent\":80, \"unversioned\":0, \"failed\":0}], \"stale\":[]}"),
    ]

    private static let routes = [
        CommandGuide(
            name: "convert", forms: ["FILE [--format=FORMAT] [--pool=NAME]"],
            summary: "mcrouter's or twemproxy's configuration as ours",
            text: [
                "Writes YAML for martlet-router to standard output. What has no counterpart is an error with file "
                    + "and line; what behaves differently is a comment. Nothing is left out silently."
            ],
            options: ["format", "pool", "route-prefix"],
            examples: [
                Example("convert mcrouter.json", "mcrouter's JSON"),
                Example("convert nutcracker.yml --format=twemproxy --pool=alpha", "One of twemproxy's pools"),
            ],
            json: "{\"yaml\":\"...\", \"warnings\":[\"...\"]}"),
        CommandGuide(
            name: "explain", forms: ["OP KEY --routes=FILE"],
            summary: "the handles and servers that a request takes",
            text: [
                "Works on a file, without a router: try a change before it is loaded. OP is get, set, delete and so "
                    + "on. The last line names the destinations in their order."
            ],
            options: ["routes", "format", "route-prefix"],
            examples: [
                Example("explain get user:1 --routes=routes.yaml", "Where a get of user:1 goes"),
                Example("explain delete user:1 --routes=mcrouter.json --json", "mcrouter's own file, for a program"),
            ],
            json: "{\"operation\":\"get\", \"key\":\"user:1\", \"destinations\":[\"10.0.0.1:11211\"], "
                + "\"handles\":[{\"depth\":0, \"handle\":\"root\"},...]}"),
    ]
}
