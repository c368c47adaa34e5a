// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Telemetry

/// What a reactor and the acceptor count. Each has a `CounterSet` of its own; ``ReactorGroup/totals()`` adds them up.
package enum ReactorCounter: Int, CounterIndex {
    /// Bytes that came from peers and went to them, after decryption and before encryption.
    case bytesRead, bytesWritten
    /// Calls of read and write (over TLS: of OpenSSL's).
    case readCalls, writeCalls
    /// Connections open now and ever.
    case connections, connectionsTotal
    /// Connections refused because there were too many.
    case connectionsRejected
    /// accept(2) failed for want of descriptors or memory.
    case acceptErrors
    /// How often listening stopped because there were too many connections, and for how long in microseconds.
    case listenDisabled, listenDisabledMicroseconds
    /// Handlers stopped for fairness.
    case yields
    /// Connections closed for idling.
    case idleKicks
    /// Connections closed because too much output, or too much input without a request, waited.
    case slowReaders, inputLimits
    /// Writes that the socket did not take whole.
    case partialWrites
    /// TLS: handshakes that failed or took too long, failures after the handshake, sessions
    /// established anew while there is a session cache.
    case handshakeErrors, protocolErrors, newSessions
    /// Messages and closures from other threads.
    case messages
    /// Request datagrams, reply datagrams, and reply datagrams dropped.
    case datagramsRead, datagramsWritten, datagramsDropped
    /// Turns of the loop.
    case turns
    /// How often the timer was set that ends the loop's sleep.
    case timerSets
}
