// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The JavaScript that every context begins with: k6's modules, and ours, over one function of the host. Evaluates to a
/// function of the context's number, which gives the functions that the host calls.
package enum Prelude {
    /// What errors call it by; places in it are left out of what people see.
    package static let url = "martlet:prelude"

    /// The script.
    package static var script: [UInt8] { Array((core + modules + client + entry).utf8) }

    private static let core = #"""
        (() => { 'use strict';
        const native = globalThis.__host, ask = globalThis.__ask;
        const cells = globalThis.__cells, keyBytes = globalThis.__key;
        for (const name of ['__host', '__ask', '__cells', '__key']) delete globalThis[name];
        let context = 0, initialising = true;
        const host = (op, a, b, c, d, e, f, g, h) => native(context, op, a, b, c, d, e, f, g, h);
        class AbortError extends Error { constructor(message) { super(message); this.name = 'TestAborted'; } }
        const describe = error => {
            if (error instanceof AbortError) return '';
            if (!(error instanceof Error)) return `Uncaught ${show(error)}`;
            const isTheirs = line => line && !/martlet:prelude|\[native code\]/.test(line);
            const stack = String(error.stack || '').split('\n').filter(isTheirs);
            const isPlaced = error.line && isTheirs(error.sourceURL);
            const at = stack.length ? stack.slice(0, 8) : isPlaced ? [`${error.sourceURL}:${error.line}`] : [];
            return [`${error.name}: ${error.message}`, ...at.map(place => `    at ${place}`)].join('\n');
        };
        // Tags as one text, the same for the same tags.
        const tagText = tags => {
            if (!tags) return undefined;
            const keys = Object.keys(tags).sort();
            return keys.length ? keys.map(key => `${key}\u0001${tags[key]}`).join('\u0002') : undefined;
        };
        const deepFreeze = value => {
            if (value && typeof value === 'object') { Object.values(value).forEach(deepFreeze); Object.freeze(value); }
            return value;
        };
        const show = value => {
            if (typeof value === 'string') return value;
            if (value instanceof Error) return describe(value);
            if (typeof value === 'bigint') return `${value}`;
            try {
                const text = JSON.stringify(value, (_, inner) => typeof inner === 'bigint' ? `${inner}` : inner);
                return text === undefined ? String(value) : text;
            } catch { return String(value); }
        };
        const log = level => (...values) => host(3, level, values.map(show).join(' '));
        globalThis.console = { log: log('INFO'), info: log('INFO'), warn: log('WARN'), error: log('ERRO'),
            debug: log('DEBU'), trace: log('DEBU') };

        const cache = new Map();
        const makeRequire = from => {
            const require = (name, names) => {
                const exports = find(name, from);
                for (const one of names || []) {
                    if (!(one in exports)) throw new SyntaxError(`the module '${name}' has no export '${one}'`);
                }
                return exports;
            };
            require.later = name => new Promise(resolve => resolve(require(name)));
            return require;
        };
        const find = (name, from) => {
            if (Object.hasOwn(builtin, name)) return builtin[name];
            const path = host(1, name, from);
            if (Object.hasOwn(builtin, path)) return builtin[path];
            if (cache.has(path)) return cache.get(path);
            const exports = Object.create(null);
            cache.set(path, exports);
            const define = (key, get) => Object.defineProperty(exports, key, { get, enumerable: true });
            const exporter = getters => { for (const key of Object.keys(getters)) define(key, getters[key]); };
            exporter.all = other => {
                for (const key of Object.keys(other)) {
                    if (key !== 'default' && !(key in exports)) define(key, () => other[key]);
                }
            };
            host(2, path)(makeRequire(path), exporter, { url: `file://${path}` });
            return exports;
        };
        """#

    private static let modules = #"""

        const check = (value, sets, tags) => {
            let all = true;
            for (const [name, test] of Object.entries(sets)) {
                let passed = false;
                try {
                    passed = !!(typeof test === 'function' ? test(value) : test);
                } catch (error) {
                    host(5, name, false, tagText(tags));
                    throw error;
                }
                host(5, name, passed, tagText(tags));
                all = all && passed;
            }
            return all;
        };
        const group = (name, body) => {
            host(6, String(name));
            let result;
            try { result = body(); } catch (error) { host(7); throw error; }
            if (result && typeof result.then === 'function') return result.finally(() => host(7));
            host(7);
            return result;
        };
        const sleep = seconds => {
            if (initialising) throw new Error('sleep is not for the init context');
            host(8, Number(seconds));
        };
        const fail = message => { throw new Error(message === undefined ? '' : String(message)); };
        const randomSeed = seed => {
            let state = BigInt.asUintN(64, BigInt(Math.trunc(seed)) * 0x9e3779b97f4a7c15n + 1n);
            Math.random = () => {
                state = BigInt.asUintN(64, state * 6364136223846793005n + 1442695040888963407n);
                return Number(state >> 11n) / 2 ** 53;
            };
        };
        class Metric {
            #number;
            constructor(kind, name, isTime) {
                if (!initialising) throw new Error('metrics are made in the init context');
                this.#number = host(9, kind, String(name), !!isTime);
                this.name = name;
            }
            add(value, tags) { host(10, this.#number, Number(value), tagText(tags)); }
        }
        const metric = kind => class extends Metric { constructor(name, isTime) { super(kind, name, isTime); } };
        const metrics = { Counter: metric('counter'), Gauge: metric('gauge'), Rate: metric('rate'),
            Trend: metric('trend') };

        const isIndex = key => typeof key === 'string' && /^(0|[1-9]\d*)$/.test(key);
        class SharedArray {
            constructor(name, make) {
                if (!initialising) throw new Error('a SharedArray is made in the init context');
                if (typeof name !== 'string' || name === '') throw new TypeError('a SharedArray needs a name');
                if (typeof make !== 'function') throw new TypeError('a SharedArray needs a function');
                let length = host(11, name);
                if (length === undefined) {
                    const values = make();
                    if (!Array.isArray(values)) throw new TypeError("a SharedArray's function gives an array");
                    for (const value of values) host(12, name, JSON.stringify(value));
                    length = host(13, name);
                }
                const target = [];
                target.length = length;
                const refuse = () => { throw new TypeError('a SharedArray cannot be changed'); };
                return new Proxy(target, {
                    get: (_, key, self) => {
                        if (!isIndex(key)) return Reflect.get(target, key, self);
                        return Number(key) < length ? deepFreeze(JSON.parse(host(14, name, Number(key)))) : undefined;
                    },
                    has: (_, key) => isIndex(key) ? Number(key) < length : key in target,
                    set: refuse, defineProperty: refuse, deleteProperty: refuse,
                });
            }
        }

        const figure = (object, name, what) => Object.defineProperty(object, name,
            { get: () => { const v = host(18, what); return v === null ? undefined : v; }, enumerable: true });
        const figures = (names, prefix) => names.reduce((o, n) => figure(o, n, `${prefix}.${n}`), {});
        const exec = {
            scenario: figures(['name', 'executor', 'startTime', 'progress', 'iterationInInstance', 'iterationInTest'],
                'scenario'),
            instance: figures(['iterationsInterrupted', 'iterationsCompleted', 'vusActive', 'vusInitialized',
                'currentTestRunDuration'], 'instance'),
            test: {
                abort: message => {
                    host(19, message === undefined ? 'test aborted' : String(message));
                    throw new AbortError(String(message));
                },
                fail: message => host(20, message === undefined ? 'test marked as failed' : String(message)),
                get options() { return JSON.parse(host(18, 'test.options')); },
            },
            vu: figures(['idInInstance', 'idInTest', 'iterationInInstance', 'iterationInScenario'], 'vu'),
        };
        // What is told to the host at each change: texts by their names.
        const told = (what, op) => new Proxy({}, {
            set: (target, key, value) => {
                if (!['string', 'number', 'boolean'].includes(typeof value)) {
                    throw new TypeError(`${what} is a text, a number or a truth value`);
                }
                target[key] = String(value);
                host(op, tagText(target));
                return true;
            },
            deleteProperty: (target, key) => { delete target[key]; host(op, tagText(target)); return true; },
        });
        const vuTags = told('a tag', 24), vuMetadata = told('metadata', 27);
        Object.defineProperty(exec.vu, 'tags', { value: vuTags, enumerable: true });
        Object.defineProperty(exec.vu, 'metrics',
            { value: { tags: vuTags, metadata: vuMetadata }, enumerable: true });
        exec.default = exec;

        const timers = new Map();
        let lastTimer = 0;
        const startTimer = (body, delay, again, values) => {
            if (typeof body !== 'function') throw new TypeError('a timer needs a function');
            const id = ++lastTimer, wait = Math.max(again ? 1 : 0, Number(delay) || 0);
            host(21, id, wait);
            timers.set(id, { body: () => body(...values), delay: wait, again });
            return id;
        };
        const clearTimer = id => { if (timers.delete(id)) host(25, id); };
        const timing = {
            setTimeout: (body, delay, ...values) => startTimer(body, delay, false, values),
            setInterval: (body, delay, ...values) => startTimer(body, delay, true, values),
            clearTimeout: clearTimer, clearInterval: clearTimer,
        };
        Object.assign(globalThis, timing);

        const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
        const toBytes = input => {
            if (input instanceof ArrayBuffer) return new Uint8Array(input);
            if (ArrayBuffer.isView(input)) return new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
            return Uint8Array.from(unescape(encodeURIComponent(String(input))), c => c.charCodeAt(0));
        };
        const toText = bytes => {
            let raw = '';
            for (const byte of bytes) raw += String.fromCharCode(byte);
            try { return decodeURIComponent(escape(raw)); } catch { return raw; }
        };
        const encoding = {
            b64encode: (input, kind = 'std') => {
                const letters = alphabet + (kind.includes('url') ? '-_' : '+/'), bytes = toBytes(input);
                let text = '';
                for (let i = 0; i < bytes.length; i += 3) {
                    const word = bytes[i] << 16 | (bytes[i + 1] || 0) << 8 | (bytes[i + 2] || 0);
                    for (let j = 0; j < 4; j++) {
                        const isThere = i + j <= bytes.length;
                        text += isThere ? letters[word >> (18 - 6 * j) & 63] : kind.startsWith('raw') ? '' : '=';
                    }
                }
                return text;
            },
            b64decode: (input, kind = 'std', format = 'b') => {
                const letters = alphabet + (kind.includes('url') ? '-_' : '+/'), out = [];
                let word = 0, bits = 0;
                for (const letter of String(input).replace(/=+$/, '')) {
                    const value = letters.indexOf(letter);
                    if (value < 0) throw new Error(`illegal base64 data: '${letter}'`);
                    word = (word << 6 | value) & 0xffffff; bits += 6;
                    if (bits >= 8) { bits -= 8; out.push(word >> bits & 255); }
                }
                const bytes = Uint8Array.from(out);
                return format === 's' ? toText(bytes) : bytes.buffer;
            },
        };
        const utils = {
            randomIntBetween: (min, max) => Math.floor(Math.random() * (max - min + 1) + min),
            randomItem: array => array[Math.floor(Math.random() * array.length)],
            randomString: (length, letters = 'abcdefghijklmnopqrstuvwxyz') => {
                let text = '';
                while (length--) text += letters[Math.floor(Math.random() * letters.length)];
                return text;
            },
            uuidv4: () => 'xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx'.replace(/[xy]/g, letter => {
                const digit = Math.floor(Math.random() * 16);
                return (letter === 'x' ? digit : digit & 3 | 8).toString(16);
            }),
            findBetween: (text, left, right) => {
                const start = text.indexOf(left);
                const end = start < 0 ? -1 : text.indexOf(right, start + left.length);
                return end < 0 ? '' : text.slice(start + left.length, end);
            },
        };
        // Of the scenario's stages, the one under way: its index, and how its target compares with the one before.
        const milliseconds = text => {
            const units = { ms: 1, s: 1e3, m: 6e4, h: 36e5, d: 864e5 };
            const parts = String(text).match(/[\d.]+(ms|s|m|h|d)/g) || [];
            return parts.reduce((sum, part) => sum + parseFloat(part) * units[part.replace(/[\d.]+/, '')], 0);
        };
        const stage = () => {
            const scenario = exec.test.options.scenarios[exec.scenario.name], stages = scenario && scenario.stages;
            if (!stages) throw new Error(`the scenario '${exec.scenario.name}' has no stages`);
            const first = (scenario.executor === 'ramping-vus' ? scenario.startVUs ?? 1 : scenario.startRate) ?? 0;
            let left = Date.now() - exec.scenario.startTime, index = 0;
            while (index < stages.length - 1 && left >= milliseconds(stages[index].duration)) {
                left -= milliseconds(stages[index++].duration);
            }
            const change = stages[index].target - (index > 0 ? stages[index - 1].target : first);
            return { index, profile: change > 0 ? 'ramp-up' : change < 0 ? 'ramp-down' : 'steady' };
        };
        Object.assign(utils, {
            getCurrentStageIndex: () => stage().index,
            tagWithCurrentStageIndex: () => { exec.vu.tags.stage = stage().index; },
            tagWithCurrentStageProfile: () => { exec.vu.tags.stage_profile = stage().profile; },
            // A bell of four deviations' width, in two thirds of the time; the rest is for its ends.
            normalDistributionStages: (users, seconds, count = 10) => {
                const side = { duration: `${Math.ceil(seconds / 6)}s` }, length = Math.ceil(4 * seconds / (6 * count));
                const bell = Array.from({ length: count + 1 },
                    (_, index) => Math.exp(-0.5 * (4 * index / count - 2) ** 2));
                const targets = bell.map(height => Math.round(users * height / Math.max(...bell)));
                const stages = targets.map((target, index) =>
                    index === 0 ? { ...side, target } : { duration: `${length}s`, target });
                return [...stages, { ...side, target: 0 }];
            },
            check: async (value, sets, tags) => {
                const known = await value, results = {};
                for (const [name, test] of Object.entries(sets)) {
                    results[name] = await (typeof test === 'function' ? test(known) : test);
                }
                return check(known, results, tags);
            },
        });
        const summaries = { textSummary: (data, options = {}) =>
            host(22, JSON.stringify(data), options.indent || '', !!options.enableColors) };
        const module = exports => Object.freeze({ ...exports, default: exports });
        """#

    private static let client = #"""

        const pending = new Map();
        let lastRequest = 0;
        const request = (client, op, key, a, b, c, d) => new Promise((resolve, reject) => {
            const id = ++lastRequest;
            host(16, id, client, op, key, a, b, c, d);
            pending.set(id, { resolve, reject, parts: undefined });
        });
        // A request of a key and nothing else: by the cells when the key is as keys mostly are.
        const simple = (client, op, key, wantsBytes) => new Promise((resolve, reject) => {
            const id = ++lastRequest, length = typeof key === 'string' && key.length <= 250 ? key.length : 0;
            let taken = 0;
            for (; taken < length; taken++) {
                const code = key.charCodeAt(taken);
                if (code <= 32 || code >= 127) break;
                keyBytes[taken] = code;
            }
            if (length > 0 && taken === length) {
                cells[2] = context; cells[3] = id; cells[4] = client; cells[5] = op; cells[6] = length;
                cells[7] = wantsBytes ? 1 : 0;
                ask();
            } else {
                host(16, id, client, op, key, wantsBytes);
            }
            pending.set(id, { resolve, reject, parts: undefined });
        });
        const big = value => value > 9007199254740991n ? value : Number(value);
        // 0 null, 1 false, 2 true, 3 text, 4 value and CAS, 5 number, 6 error, 7 a part of many, 8 their end, 9 a word,
        // 10 a meta reply, 11 bytes
        const settle = (id, kind, a, b, c) => {
            const one = pending.get(id);
            if (!one) return;
            if (kind === 7) { (one.parts ||= {})[a] = b; return; }
            pending.delete(id);
            switch (kind) {
            case 0: one.resolve(null); break;
            case 1: one.resolve(false); break;
            case 2: one.resolve(true); break;
            case 3: case 9: case 11: one.resolve(a); break;
            case 4: one.resolve({ value: a, cas: b }); break;
            case 5: one.resolve(big(a)); break;
            case 6: one.reject(new Error(a)); break;
            case 8: one.resolve(one.parts || {}); break;
            case 10: one.resolve({ status: a, flags: b === '' ? [] : b.split(' '), value: c === undefined ? null : c });
            }
        };
        const operations = { get: 0, gets: 1, set: 2, add: 3, replace: 4, append: 5, prepend: 6, cas: 7, delete: 8,
            incr: 9, decr: 10, touch: 11, gat: 12, mget: 13, meta: 14, version: 15, flushAll: 16 };
        const seconds = ttl => {
            if (ttl === undefined || ttl === null) return 0;
            if (typeof ttl === 'number' && Math.abs(ttl) <= 1e15) return Math.trunc(ttl);
            throw new TypeError(`a time to live is a number of seconds, not ${show(ttl)}`);
        };
        const expiry = options => seconds(options !== null && typeof options === 'object' ? options.ttl : options);
        const isKey = key => /^[^\u0000-\u0020\u007f]+$/.test(key);
        // What is not a whole number is refused by BigInt.
        const flags = options => {
            const value = typeof options === 'object' && options && options.flags || 0;
            if (value === 0) return 0;
            const number = BigInt(value);
            if (number >= 0n && number < 4294967296n) return number;
            throw new RangeError(`flags are 0 to 4294967295, not ${value}`);
        };
        const body = value => {
            if (value instanceof ArrayBuffer || ArrayBuffer.isView(value) || typeof value === 'string') return value;
            if (['number', 'bigint', 'boolean'].includes(typeof value)) return String(value);
            throw new TypeError('a value is a text, a number, or bytes; JSON.stringify makes text of others');
        };
        const later = work => { try { return work(); } catch (error) { return Promise.reject(error); } };
        const methods = {
            get(key) { return simple(this.number, 0, key, false); },
            getBytes(key) { return simple(this.number, 0, key, true); },
            gets(key) { return simple(this.number, 1, key, false); },
            delete(key) { return simple(this.number, 8, key, false); },
            incr(key, by = 1) { return later(() => request(this.number, 9, key, BigInt(by))); },
            decr(key, by = 1) { return later(() => request(this.number, 10, key, BigInt(by))); },
            touch(key, ttl) { return later(() => request(this.number, 11, key, seconds(ttl))); },
            gat(key, ttl) { return later(() => request(this.number, 12, key, seconds(ttl))); },
            mget(keys) {
                return later(() => {
                    const list = Array.from(keys, String);
                    if (!list.every(isKey)) throw new Error('a key has no spaces and control characters');
                    return list.length ? request(this.number, 13, list.join(' ')) : Promise.resolve({});
                });
            },
            cas(key, value, cas, options) {
                return later(() => {
                    if (typeof cas !== 'bigint') throw new TypeError('a CAS value is a BigInt, as gets gives it');
                    return request(this.number, 7, key, body(value), expiry(options), cas, flags(options));
                });
            },
            meta(command, key, flags = [], value) {
                const list = typeof flags === 'string' ? flags : Array.from(flags).join(' ');
                const text = () => value === undefined ? value : body(value);
                return later(() => request(this.number, 14, key, command, list, text()));
            },
            version() { return request(this.number, 15, ''); },
            flushAll() { return request(this.number, 16, ''); },
        };
        for (const name of ['set', 'add', 'replace', 'append', 'prepend']) {
            methods[name] = function (key, value, options) {
                return later(() => request(this.number, operations[name], key, body(value), expiry(options),
                    flags(options)));
            };
        }
        const isShared = value => {
            if (value === undefined || typeof value === 'boolean') return value ?? true;
            throw new TypeError("k6/x/memcached: 'shared' is true or false");
        };
        const connect = (target, more = {}) => {
            const isObject = typeof target === 'object' && target && !Array.isArray(target);
            const given = isObject ? target : { ...more, servers: target };
            const known = ['servers', 'router', 'tls', 'pool', 'shared', 'pipeline', 'timeout', 'hash'];
            for (const name of Object.keys(given)) {
                if (!known.includes(name)) throw new Error(`k6/x/memcached: there is no option '${name}'`);
            }
            if (given.router !== undefined && (given.servers !== undefined || given.hash !== undefined)) {
                throw new Error("k6/x/memcached: a 'router' stands in the place of 'servers' and 'hash'");
            }
            if (given.router !== undefined && !/^[^\s,]+$/.test(given.router)) {
                throw new TypeError("k6/x/memcached: 'router' is one address");
            }
            const list = [given.router ?? given.servers ?? []].flat();
            const shared = isShared(given.shared);
            const servers = list.flatMap(s => String(s).split(',')).map(s => s.trim().replace(/^memcached:\/\//, ''));
            const tls = given.tls === undefined ? '' : JSON.stringify(given.tls);
            return host(15, servers.join(','), given.pool || (shared ? 4 : 1), String(given.timeout ?? ''),
                given.hash || '', shared, tls, given.pipeline ?? 0);
        };
        class Client { constructor(target, options) { this.number = connect(target, options); } }
        Object.assign(Client.prototype, methods);
        const memcached = { Client, connect: (target, options) => new Client(target, options) };
        Object.defineProperty(memcached, 'number', { get: () => {
            const value = connect();
            Object.defineProperty(memcached, 'number', { value });
            return value;
        }, configurable: true });
        for (const name of Object.keys(methods)) memcached[name] = methods[name].bind(memcached);
        memcached.default = memcached;
        """#

    private static let entry = #"""

        const k6 = module({ check, group, sleep, fail, randomSeed });
        const builtin = {
            'k6': k6, 'k6/metrics': module(metrics), 'k6/data': module({ SharedArray }), 'k6/execution': exec,
            'k6/timers': module(timing), 'k6/encoding': module(encoding), 'k6/x/memcached': memcached,
            'martlet:utils': module(utils), 'martlet:summary': module(summaries),
        };
        let exported = {}, data, main, iterating;
        const start = (number, path, environment, vu, seed) => {
            context = number;
            globalThis.__ENV = JSON.parse(environment);
            globalThis.__VU = vu;
            if (seed !== undefined) randomSeed(seed);
            globalThis.__ITER = 0;
            globalThis.open = (file, mode = '') => {
                if (!initialising) throw new Error('open is for the init context');
                const value = host(4, String(file), mode === 'b');
                return mode === 'b' ? value.buffer : value;
            };
            exported = find(path, '');
            initialising = false;
            return JSON.stringify({
                options: exported.options === undefined ? {} : exported.options,
                functions: Object.keys(exported).filter(name => typeof exported[name] === 'function'),
            }, (key, value) => typeof value === 'bigint' ? Number(value) : value);
        };
        const prepare = (environment, text, name) => {
            main = name;
            Object.assign(globalThis.__ENV, JSON.parse(environment));
            data = text === undefined ? undefined : JSON.parse(text);
        };
        // Without an error an iteration is over when nothing of it is under way any more, which the host sees.
        const forget = () => { pending.clear(); timers.clear(); };
        const over = error => { forget(); host(17, describe(error)); };
        const unhandled = (promise, error) => {
            const text = describe(error);
            forget();
            host(17, text && promise !== iterating ? `Uncaught (in promise) ${text}` : text);
        };
        const run = iteration => {
            globalThis.__ITER = iteration;
            iterating = undefined;
            let result;
            try { result = exported[main](data); } catch (error) { over(error); return; }
            // Nobody handles an iteration's promise, so that one that is rejected comes to `unhandled`.
            if (result instanceof Promise) iterating = result;
            else if (result && typeof result.then === 'function') result.then(undefined, over);
        };
        let outcome;
        const once = (name, text) => {
            outcome = undefined;
            let result;
            try {
                result = exported[name](text === undefined ? data : JSON.parse(text));
            } catch (error) { over(error); return; }
            Promise.resolve(result).then(value => { outcome = value; }, over);
        };
        const take = () => outcome === undefined ? undefined : JSON.stringify(outcome);
        const deliver = () => {
            if (outcome === undefined || outcome === null) return;
            if (typeof outcome !== 'object') throw new TypeError('it gives an object of texts by where they go');
            for (const [target, value] of Object.entries(outcome)) {
                const isBytes = value instanceof ArrayBuffer || ArrayBuffer.isView(value);
                const isText = typeof value === 'string';
                if (!isBytes && !isText) throw new TypeError(`'${target}' is neither a text nor bytes`);
                host(26, target, isBytes ? value : value.replace(/\p{Surrogate}/gu, '\ufffd'));
            }
        };
        const fire = id => {
            const timer = timers.get(id);
            if (!timer) return;
            try {
                if (timer.again) host(21, id, timer.delay); else timers.delete(id);
                timer.body();
            } catch (error) { over(error); }
        };
        return { start, prepare, run, once, take, deliver, settle, fire, forget, unhandled };
        })()
        """#
}
