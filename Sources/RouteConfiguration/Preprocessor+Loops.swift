// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Settings

/// Functions that expand a part of themselves for each element. Source: mcrouter's documentation of `transform`,
/// `process` and `foreach`.
extension Preprocessor {
    /// What goes through a list or an object: its entries, with numbers for keys of lists.
    private func entries(
        _ name: String, _ object: JSONObject, _ scope: Scope, _ place: JSONNode.Place
    ) throws(RouteProblem) -> (isObject: Bool, entries: [(key: JSONNode, item: JSONNode)]) {
        guard let raw = object[name] else { throw RouteProblem("the parameter \(name) is missing", at: place) }
        let value = try expand(raw, scope)
        switch value.content {
        case .object(let object):
            return (true, object.entries.map { (JSONNode(.text($0.key), at: $0.value.place), $0.value) })
        case .array(let elements):
            return (false, elements.enumerated().map { (JSONNode(.integer(Int64($0)), at: $1.place), $1) })
        default: throw RouteProblem("\(name) is \(value.kind); an object or a list is expected", at: place)
        }
    }

    private func name(
        _ parameter: String, _ object: JSONObject, standard: String, _ place: JSONNode.Place
    ) throws(RouteProblem) -> String {
        guard let given = object[parameter] else { return standard }
        guard let text = given.text else {
            throw RouteProblem("\(parameter) is \(given.kind); a text is expected", at: place)
        }
        return text
    }

    func transform(
        _ object: JSONObject, _ scope: Scope, _ place: JSONNode.Place
    ) throws(RouteProblem) -> JSONNode {
        let (isObject, entries) = try entries("dictionary", object, scope, place)
        let itemName = try name("itemName", object, standard: "item", place)
        let keyName = try name("keyName", object, standard: "key", place)
        let (itemTransform, keyTransform) = (object["itemTransform"], object["keyTransform"])
        if !isObject, !entries.isEmpty, itemTransform == nil {
            throw RouteProblem("a list needs itemTransform", at: place)
        }
        var items: [JSONNode] = []
        var result = JSONObject()
        for entry in entries {
            let inner = Scope(scope)
            inner.set(keyName, entry.key)
            inner.set(itemName, entry.item)
            var key = entry.key
            if isObject, let keyTransform { key = try expand(keyTransform, inner) }
            if key.array?.isEmpty == true { continue }
            var item = entry.item
            if let itemTransform { item = try expand(itemTransform, inner) }
            guard isObject else {
                items.append(item)
                continue
            }
            for one in key.array ?? [key] {
                guard let text = one.text else {
                    throw RouteProblem("a key becomes \(one.kind); a text or a list of texts is expected", at: place)
                }
                try count(item.size, place)
                result[text] = item
            }
        }
        return JSONNode(isObject ? .object(result) : .array(items), at: place)
    }

    func process(
        _ object: JSONObject, _ scope: Scope, _ place: JSONNode.Place
    ) throws(RouteProblem) -> JSONNode {
        let entries = try entries("dictionary", object, scope, place).entries
        guard let initial = object["initialValue"], let transform = object["transform"] else {
            throw RouteProblem("initialValue or transform is missing", at: place)
        }
        let itemName = try name("itemName", object, standard: "item", place)
        let keyName = try name("keyName", object, standard: "key", place)
        let valueName = try name("valueName", object, standard: "value", place)
        var value = try expand(initial, scope)
        for entry in entries {
            let inner = Scope(scope)
            inner.set(keyName, entry.key)
            inner.set(itemName, entry.item)
            inner.set(valueName, value)
            value = try expand(transform, inner)
        }
        return value
    }

    func forEach(
        _ object: JSONObject, _ scope: Scope, _ place: JSONNode.Place
    ) throws(RouteProblem) -> JSONNode {
        let (isObject, entries) = try entries("from", object, scope, place)
        let itemName = try name("item", object, standard: "item", place)
        let keyName = try name("key", object, standard: "key", place)
        var top = Int64(entries.count)
        if let limit = object["top"] {
            guard let number = try expand(limit, scope).integer, number >= 0 else {
                throw RouteProblem("top is no whole number from 0 on", at: place)
            }
            top = number
        }
        var (list, dictionary) = ([JSONNode](), JSONObject())
        var makesObject: Bool?
        for entry in entries where top > 0 {
            let inner = Scope(scope)
            inner.set(keyName, entry.key)
            inner.set(itemName, entry.item)
            if let condition = object["where"] {
                guard let holds = try expand(condition, inner).boolean else {
                    throw RouteProblem("where is no boolean", at: place)
                }
                if !holds { continue }
            }
            top -= 1
            guard let use = object["use"] else {
                makesObject = isObject
                if isObject { dictionary[entry.key.text ?? ""] = entry.item } else { list.append(entry.item) }
                continue
            }
            let used = try expand(use, inner)
            if let object = used.object, makesObject != false {
                makesObject = true
                for inner in object.entries { dictionary[inner.key] = inner.value }
            } else if let elements = used.array, makesObject != true {
                makesObject = false
                list += elements
            } else {
                throw RouteProblem("use becomes \(used.kind); all of them have to be lists, or all objects", at: place)
            }
        }
        if let makesObject { return JSONNode(makesObject ? .object(dictionary) : .array(list), at: place) }
        if let nothing = object["noMatchResult"] { return try expand(nothing, scope) }
        return JSONNode(isObject ? .object(JSONObject()) : .array([]), at: place)
    }
}
