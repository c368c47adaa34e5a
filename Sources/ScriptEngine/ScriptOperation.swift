// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What scripts ask of the host, by the numbers that the prelude uses.
package enum ScriptOperation: Int, Sendable {
    /// (name, importer's path or empty) → the module's path.
    case resolve = 1
    /// (path) → the module's script.
    case load
    /// (level, text)
    case log
    /// (path, whether binary) → text or bytes.
    case open
    /// (name, passed, tags)
    case check
    /// (name), and (began): groups.
    case enterGroup, leaveGroup
    /// (seconds)
    case sleep
    /// (kind, name, whether time) → the metric's number.
    case metric
    /// (metric, value, tags)
    case sample
    /// (name) → how many, or undefined; (name, JSON); (name) when all were added; (name, index) → JSON.
    case sharedLength, sharedAdd, sharedDone, sharedItem
    /// (servers with commas, connections, timeout in ms) → the client's number.
    case client
    /// (request, client, operation, key, …)
    case request
    /// (description of what was thrown)
    case endIteration
    /// (what) → a figure of the execution.
    case execution
    /// (message): the test ends, or counts as failed.
    case abort, failTest
    /// (timer, milliseconds)
    case timer
    /// (the summary's data as JSON, indent, colours) → text.
    case summary
    /// (seed)
    case seed
    /// (tags of all of the user's samples)
    case userTags
    /// (timer): it is not to fire any more.
    case clearTimer
    /// (target, text or bytes): a part of what handleSummary gives.
    case summaryPart
    /// (what outputs that have each sample say of the user's, besides tags)
    case userMetadata
}
