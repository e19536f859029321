/// A token that is matched in the text before anything else and never split.
struct AddedToken: Sendable, Equatable {
    let id: UInt32
    let content: [UInt8]
    let isSpecial: Bool
    /// True when it is matched after the tokens that are not normalised. There is no normaliser, so only the order counts.
    let isNormalized: Bool
    /// True when it swallows the white space to its left.
    let stripsLeft: Bool
    /// True when it swallows the white space to its right.
    let stripsRight: Bool
}

/// Finds added tokens: leftmost first, the longest of those that begin at the same byte.
struct AddedTokenMatcher: Sendable {
    private let tokens: [AddedToken]
    private var children = WordTable()
    private var tokenAt: [Int32] = [-1]
    private var canBegin = [Bool](repeating: false, count: 256)

    init(_ tokens: [AddedToken]) {
        self.tokens = tokens
        for (index, token) in tokens.enumerated() {
            guard let first = token.content.first else { continue }
            canBegin[Int(first)] = true
            var node = 0
            for byte in token.content {
                let key = UInt64(node) << 8 | UInt64(byte)
                if let child = children[key] {
                    node = Int(child)
                } else {
                    children[key] = UInt64(tokenAt.count)
                    node = tokenAt.count
                    tokenAt.append(-1)
                }
            }
            tokenAt[node] = Int32(index)
        }
    }

    /// The next token at or after `start`: its id and the bytes it takes, white space it swallows included.
    func next(_ text: UnsafeBufferPointer<UInt8>, from start: Int) -> (id: UInt32, start: Int, end: Int)? {
        var place = start
        while place < text.count {
            guard canBegin[Int(text[place])], let token = longest(text, at: place) else {
                place += 1
                continue
            }
            let left = token.stripsLeft ? WhiteSpace.suffix(of: text, from: start, to: place) : 0
            let end = place + token.content.count
            let right = token.stripsRight ? WhiteSpace.prefix(of: text, from: end) : 0
            return (token.id, place - left, end + right)
        }
        return nil
    }

    private func longest(_ text: UnsafeBufferPointer<UInt8>, at start: Int) -> AddedToken? {
        var node = 0
        var found: Int32 = -1
        var place = start
        while place < text.count, let child = children[UInt64(node) << 8 | UInt64(text[place])] {
            node = Int(child)
            place += 1
            if tokenAt[node] >= 0 { found = tokenAt[node] }
        }
        return found < 0 ? nil : tokens[Int(found)]
    }
}

/// The characters with the Unicode property White_Space, in UTF-8.
enum WhiteSpace {
    /// Bytes of the white-space character that begins at `place`; 0 if there is none.
    static func length(_ text: UnsafeBufferPointer<UInt8>, at place: Int) -> Int {
        let left = text.count - place
        guard left > 0 else { return 0 }
        switch text[place] {
        case 0x09...0x0D, 0x20: return 1
        case 0xC2 where left > 1: return text[place + 1] == 0x85 || text[place + 1] == 0xA0 ? 2 : 0
        case 0xE1 where left > 2: return text[place + 1] == 0x9A && text[place + 2] == 0x80 ? 3 : 0
        case 0xE2 where left > 2:
            switch (text[place + 1], text[place + 2]) {
            case (0x80, 0x80...0x8A), (0x80, 0xA8), (0x80, 0xA9), (0x80, 0xAF), (0x81, 0x9F): return 3
            default: return 0
            }
        case 0xE3 where left > 2: return text[place + 1] == 0x80 && text[place + 2] == 0x80 ? 3 : 0
        default: return 0
        }
    }

    /// Bytes of white space that begin at `start`.
    static func prefix(of text: UnsafeBufferPointer<UInt8>, from start: Int) -> Int {
        var place = start
        while case let count = length(text, at: place), count > 0 { place += count }
        return place - start
    }

    /// Bytes of white space that end at `end`, not reaching before `start`.
    static func suffix(of text: UnsafeBufferPointer<UInt8>, from start: Int, to end: Int) -> Int {
        var place = end
        search: while place > start {
            for count in 1...3 where place - count >= start && length(text, at: place - count) == count {
                place -= count
                continue search
            }
            break
        }
        return end - place
    }
}
