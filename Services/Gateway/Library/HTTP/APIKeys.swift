import CCrypto

/// The keys that clients present as `Authorization: Bearer KEY`, and how many requests each may have at once.
///
/// A file has one key per line, and after it optionally how many requests it may have at once. Lines that are empty or
/// begin with `#` are skipped.
package struct APIKeys: Sendable {
    /// Keys one file may have.
    package static let maximumKeys = 10_000

    private struct Entry: Sendable {
        let digest: [UInt8]
        let limit: Int
        var active = 0
    }

    private var entries: [Entry] = []

    /// No keys: every client is let in.
    package init() {}

    /// The keys in the text of a file. `limit` holds for keys that name none. Throws a sentence with the line's number.
    package init(parsing text: String, limit: Int) throws(APIKeysError) {
        let lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        for (number, line) in lines.enumerated() {
            let parts = line.split(whereSeparator: \.isWhitespace).map(String.init)
            guard let key = parts.first, !key.hasPrefix("#") else { continue }
            guard key.utf8.count >= 8 else { throw APIKeysError("line \(number + 1): a key has at least 8 bytes") }
            let own = parts.count > 1 ? Int(parts[1]) : limit
            guard let own, (1...1_000_000).contains(own), parts.count <= 2 else {
                throw APIKeysError("line \(number + 1): wanted is KEY [REQUESTS-AT-ONCE]")
            }
            guard entries.count < Self.maximumKeys else {
                throw APIKeysError("more than \(Self.maximumKeys) keys")
            }
            let digest = Self.digest(key)
            guard !entries.contains(where: { $0.digest == digest }) else {
                throw APIKeysError("line \(number + 1): the key is there already")
            }
            entries.append(Entry(digest: digest, limit: own))
        }
        guard !entries.isEmpty else { throw APIKeysError("there is no key in it") }
    }

    /// True when clients need a key.
    package var areNeeded: Bool { !entries.isEmpty }

    /// Counts a request in for the key in a client's header; returns what `leave` takes. Nil means that no key is needed.
    package mutating func enter(authorization: String?) throws(APIError) -> Int? {
        guard areNeeded else { return nil }
        guard let index = authorization.flatMap(find) else {
            throw APIError(
                401, type: "invalid_request_error", code: "invalid_api_key",
                message: authorization == nil
                    ? "An API key is needed: Authorization: Bearer KEY" : "The API key is not known here.")
        }
        guard entries[index].active < entries[index].limit else {
            throw APIError(
                429, type: "rate_limit_error", code: "rate_limit_exceeded",
                message: "This API key has \(entries[index].limit) requests at work, its limit.", retryAfterSeconds: 1)
        }
        entries[index].active += 1
        return index
    }

    /// Counts a request out.
    package mutating func leave(_ index: Int?) {
        if let index { entries[index].active -= 1 }
    }

    /// Compares with every key, in a time that does not depend on where they differ.
    private func find(_ authorization: String) -> Int? {
        let parts = authorization.split(separator: " ", maxSplits: 1)
        guard parts.count == 2, parts[0].lowercased() == "bearer" else { return nil }
        let digest = Self.digest(String(parts[1]))
        var found: Int?
        for (index, entry) in entries.enumerated() where CRYPTO_memcmp(entry.digest, digest, 32) == 0 { found = index }
        return found
    }

    private static func digest(_ key: String) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: 32)
        let bytes = Array(key.utf8)
        _ = EVP_Digest(bytes, bytes.count, &digest, nil, EVP_sha256(), nil)
        return digest
    }
}

/// A file of keys that cannot be used.
package struct APIKeysError: Error, Sendable, CustomStringConvertible {
    /// What is wrong.
    package let description: String

    init(_ description: String) { self.description = description }
}
