// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What stands for the database of the example.
func loadName(_ user: Int) async throws -> [UInt8] { Array("Ada\(user)".utf8) }

/// As `loadName`.
func storeName(_ user: Int, _ name: String) async throws {}
