// Martlet
// SPDX-License-Identifier: Apache-2.0

extension CommandGuide {
    /// Every command, in the order of the help.
    static let all: [CommandGuide] = serving + rows + streams + regions + routes

    /// How servers' memcached ports are spoken to.
    private static let servers = ["tls", "ca", "certificate", "key", "tls-name", "user", "password-file"]

    /// A form of a command with those options.
    private static func secured(_ form: String) -> [String] {
        [
            "\(form) --tls [--ca=FILE] [--tls-name=NAME]", "\(form) --tls --certificate=FILE [--key=FILE]",
            "\(form) --user=NAME --password-file=FILE",
        ]
    }

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
                    + "that do not fit into the terminal (or $COLUMNS) are left out; --wide shows all.",
                "Reasons why a server is not simply serving stand below the table, and configurations that differ.",
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
            name: "ring", forms: ["[HOST:PORT ...]"], summary: "whose the keys are, as each server knows it",
            text: [
                "Of a router, the epoch of its plan, its servers, their state, and what part of all keys each has, by "
                    + "a sample. Of a node, the members that it knows; where nodes share a store, the epoch that they "
                    + "agreed on, and whether the node has its lease.",
                "Servers that disagree for longer than a moment look at different sources of members.",
            ],
            options: ["node"],
            examples: [
                Example("ring 127.0.0.1:9151", "A router's plan"),
                Example("ring 10.0.0.1:9150 10.0.0.2:9150 --json", "Whether two nodes agree, for a program"),
            ],
            json: "{\"servers\":[{\"server\":..., \"ring\":{\"role\":\"router\", \"epoch\":3, \"pools\":[...], "
                + "\"members\":[{\"name\":..., \"state\":\"up\", \"share\":0.34}]}}]}"),
        CommandGuide(
            name: "hotkeys", forms: ["[HOST:PORT ...] [--count=N]"], summary: "the keys that are read most",
            text: [
                "By the nodes' samples of one read in 64, of all nodes together. Keys are shown as hashes unless the "
                    + "nodes were told to show them (hotKeys.showKeys): to look for one, hash it with xxhsum -H3."
            ],
            options: ["node", "count"],
            examples: [
                Example("hotkeys 10.0.0.1:9150 10.0.0.2:9150", "The 20 hottest of two nodes"),
                Example("hotkeys --count=1 --json", "The hottest of this machine's node, for a program"),
            ],
            json: "{\"keys\":[{\"server\":..., \"key\":\"62cfc20e12e2aef1\", \"reads\":51234, \"error\":12}]}"),
        CommandGuide(
            name: "events", forms: ["[HOST:PORT ...] [--count=N]"], summary: "what happened lately, in order",
            text: [
                "Changes of members and epochs, shedding that began and ended, servers that were taken out, "
                    + "configurations, starts and ends: the last 256 of each server, put in the order of time.",
                "The same lines stand in the log, with the field event.",
            ],
            options: ["node", "count"],
            examples: [
                Example("events 10.0.0.1:9150 10.0.0.9:9151", "A node and a router beside each other"),
                Example("events --count=5 --json", "The last five of this machine's node, for a program"),
            ],
            json: "{\"events\":[{\"server\":..., \"ts\":..., \"level\":\"info\", \"msg\":\"members changed\", "
                + "\"event\":\"membership\", \"count\":3, \"epoch\":\"7\"}]}"),
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
            forms: ["--input=FILE [--server=HOST:PORT] [--resume]", "--from=DIR --to=DIR [--id=N]"]
                + secured("--input=FILE ..."),
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
            options: ["input", "server", "resume", "from", "to", "id"] + servers,
            examples: [
                Example("restore --input=rows.dump --server=127.0.0.1:11211", "A dump into a node"),
                Example("restore --input=rows.dump --server=10.2.0.1:11212 --tls", "Into a node whose port speaks TLS"),
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

    private static let regions = [
        CommandGuide(
            name: "region status", forms: [""],
            summary: "which region is home, and whether this one could be",
            text: [
                "Tells what the node knows: its region's role, which promotion made the home region that, how its own "
                    + "database is (a standby, and up to when it has everything; fenced, by which promotion, and for "
                    + "how long nobody has taken writes), what other regions say, and what this region had "
                    + "acknowledged and the home that followed it does not have."
            ],
            options: ["node"],
            examples: [
                Example("region status", "The node of this machine"),
                Example("region status --node=http://10.2.0.1:9150 --json", "Another one, for a program"),
            ],
            json: "{\"region\":\"eu-west\", \"role\":\"replica\", \"home\":\"us-east\", \"epoch\":0, "
                + "\"database\":{\"state\":\"standby\", \"behind_ms\":412, ...}, \"peers\":[...], "
                + "\"left_behind\":null}"),
        CommandGuide(
            name: "region promote", forms: ["REGION [--timeout=SECONDS] [--accept-loss]"],
            summary: "make another region home: move it, or replace one that is gone",
            text: [
                "Asked of a node of REGION, whose settings name a standby of home's database (storage.standbyURL), or "
                    + "whose database is one of all regions. The old home is fenced: it takes no writes any more. When "
                    + "the standby has everything that it had, the standby becomes a primary, and REGION is home. "
                    + "Nodes of all regions turn to it by themselves. Nothing is lost, and writes are refused for "
                    + "about a second.",
                "Where no node of the old home answers, or the standby does not follow within --timeout, nothing is "
                    + "changed, and the exit code is 69. With --accept-loss it goes on: what the old home acknowledged "
                    + "last may be lost then, and the report says from when on. A home that comes back later is fenced "
                    + "before it serves.",
                "Needs the node's admin token, and a database user that may call pg_promote, unless the standby was "
                    + "promoted before by other means.",
            ],
            options: ["node", "token-file", "timeout", "accept-loss"],
            examples: [
                Example("region promote eu-west --token-file=token", "Move the home region, without loss"),
                Example("region promote eu-west --accept-loss --token-file=token", "The home region is gone"),
                Example("region promote us-east --node=http://us-1:9150 --token-file=t", "And back, later"),
            ],
            json: "{\"number\":1, \"running\":false, \"phase\":\"done\", \"failure\":null, \"home\":\"eu-west\", "
                + "\"epoch\":1, \"old_home\":\"us-east\", \"lossless\":true, \"safe_until_ms\":..., "
                + "\"given_up_ms\":..., \"loss_window_ms\":0, \"took_ms\":1240}"),
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
                + "\"exp_ms\":0, \"region\":..., \"source\":..., \"epoch\":1, \"epoch_text\":\"1\", \"slot\":17, "
                + "\"seq_first\":4, \"seq\":4, \"ts_ms\":..., \"reason\":\"write\"}; op is lost, reset or damaged "
                + "where records are missing"),
        CommandGuide(
            name: "stream repair", forms: [""],
            summary: "have a node ask again for changes that it misses",
            text: [
                "A node does so by itself, and gives a slot up after two seconds. This asks once more, and for a proof "
                    + "at once: look at `stream status` behind it. Through Kafka it asks the home region, which needs "
                    + "a `stream` in `regions` for that. Needs the node's admin token."
            ],
            options: ["node", "token-file"],
            examples: [Example("stream repair --token-file=token", "The node of this machine")],
            json: "{\"asked\":true, \"slots\":0}"),
        CommandGuide(
            name: "stream replay", forms: ["[--slot=N]"],
            summary: "have the changes that are kept sent to a node again",
            text: [
                "The source sends everything that it keeps (stream.retention) of a slot, or of all, once more. A "
                    + "record acts if it is newer than the copy, so it costs work and changes nothing that was right. "
                    + "For a node of which it is suspected that it missed something. Through Kafka the topic is read "
                    + "once more, and copies that are older go, without another in their place. Needs the node's admin "
                    + "token."
            ],
            options: ["node", "token-file", "slot"],
            examples: [
                Example("stream replay --token-file=token", "All slots"),
                Example("stream replay --slot=17 --token-file=token", "One of them"),
            ],
            json: "{\"asked\":true, \"slots\":64}"),
        CommandGuide(
            name: "stream skip", forms: ["--slot=N"],
            summary: "have a node give a slot up, and go on",
            text: [
                "The copies of the slot are not shown any more and are removed; what is known to be missing is not "
                    + "waited for. Reads of its keys are misses once, or go to the store. For a slot that does not "
                    + "come right; it needs no connection. Needs the node's admin token."
            ],
            options: ["node", "token-file", "slot"],
            examples: [
                Example("stream skip --slot=17 --token-file=token", "One slot"),
                Example(
                    "stream skip --slot=all --token-file=token", "Everything: as after a flush_all of what is stored"),
            ],
            json: "{\"asked\":true, \"slots\":1}"),
        CommandGuide(
            name: "audit",
            forms: ["HOST:PORT ... [--after=SECONDS] [--for=SECONDS] [--rate=N]"] + secured("HOST:PORT ..."),
            summary: "whether nodes show copies that are older than changes",
            text: [
                "Reads the stream of a node of the home region (--node), and some seconds after each change looks at "
                    + "the copies that the nodes named have of its key. Only the cache is asked, as `me` does: nothing "
                    + "is read from a store, and no copy counts as read.",
                "A copy with an older version than the change is stale; the exit code is 65 then, and the report names "
                    + "the first hundred. Versions of clients' own in plain caches say nothing, and are counted apart. "
                    + "Ask behind the bound of staleness (stream.lagBound): before it, an older copy is allowed.",
                "Needs the admin token of the home region's node. Nodes whose ports speak TLS are asked with --tls; "
                    + "one that wants a login (-Y) gets --user and its password, which is on no command line.",
            ],
            options: ["node", "token-file", "after", "for", "rate", "begin"] + servers,
            examples: [
                Example("audit 10.2.0.1:11211 10.2.0.2:11211 --token-file=token", "Two nodes, now"),
                Example("audit 10.2.0.1:11211 --after=10,60 --for=300 --json", "For a program"),
                Example("audit 10.2.0.1:11211 --begin=kept --for=5", "Changes that are over, too"),
                Example("audit 10.2.0.1:11212 --tls --ca=ca.pem --token-file=token", "A node whose port speaks TLS"),
                Example("audit 10.2.0.1:11211 --user=ops --password-file=password", "A node that wants a login"),
            ],
            json: "{\"records\":1201, \"skipped\":0, \"windows\":[{\"afterSeconds\":1, \"checks\":1201, \"stale\":0, "
                + "\"absent\":80, \"unversioned\":0, \"failed\":0}], \"stale\":[], \"problems\":[]}"),
    ]

    private static let routes = [
        CommandGuide(
            name: "convert", forms: ["FILE [--format=FORMAT] [--pool=NAME]", "FILE --variables=FILE"],
            summary: "mcrouter's or twemproxy's configuration as ours",
            text: [
                "Writes YAML for martlet-router to standard output. What has no counterpart is an error with file "
                    + "and line; what behaves differently is a comment. Nothing is left out silently."
            ],
            options: ["format", "pool", "route-prefix", "variables"],
            examples: [
                Example("convert mcrouter.json", "mcrouter's JSON"),
                Example("convert nutcracker.yml --format=twemproxy --pool=alpha", "One of twemproxy's pools"),
            ],
            json: "{\"yaml\":\"...\", \"warnings\":[\"...\"]}"),
        CommandGuide(
            name: "explain", forms: ["OP KEY --routes=FILE [--variables=FILE]"],
            summary: "the handles and servers that a request takes",
            text: [
                "Works on a file, without a router: try a change before it is loaded. OP is get, set, delete and so "
                    + "on. The last line names the destinations in their order."
            ],
            options: ["routes", "format", "route-prefix", "variables"],
            examples: [
                Example("explain get user:1 --routes=routes.yaml", "Where a get of user:1 goes"),
                Example("explain delete user:1 --routes=mcrouter.json --json", "mcrouter's own file, for a program"),
            ],
            json: "{\"operation\":\"get\", \"key\":\"user:1\", \"destinations\":[\"10.0.0.1:11211\"], "
                + "\"handles\":[{\"depth\":0, \"handle\":\"root\"},...]}"),
    ]
}
