/// A token that may be drawn.
package struct Candidate {
    package let id: UInt32
    package let logit: Float

    package init(id: UInt32, logit: Float) {
        self.id = id
        self.logit = logit
    }

    /// True when this one comes before `other`: higher logit, ties to the lower id.
    @inline(__always)
    package func precedes(_ other: Candidate) -> Bool {
        logit > other.logit || (logit == other.logit && id < other.id)
    }
}

extension Array where Element == Candidate {
    /// Puts the first `count` of the elements from `first` on in order, as if all of those had been sorted.
    package mutating func order(from first: Int, count: Int) {
        withUnsafeMutableBufferPointer { all in
            var rest = UnsafeMutableBufferPointer(rebasing: all[first...])
            Self.select(&rest, count)
            rest[..<count].sort { $0.precedes($1) }
        }
    }

    /// Brings the `count` elements that come first to the front, in any order (Hoare's quickselect with the middle of
    /// three as pivot). The order is total, so which ones these are does not depend on pivots.
    private static func select(_ all: inout UnsafeMutableBufferPointer<Candidate>, _ count: Int) {
        var (low, high) = (0, all.count - 1)
        while low < high {
            let pivot = middle(all[low], all[(low + high) / 2], all[high])
            var (i, j) = (low, high)
            while i <= j {
                while all[i].precedes(pivot) { i += 1 }
                while pivot.precedes(all[j]) { j -= 1 }
                guard i <= j else { break }
                all.swapAt(i, j)
                i += 1
                j -= 1
            }
            if count - 1 <= j { high = j } else if count - 1 >= i { low = i } else { return }
        }
    }

    private static func middle(_ a: Candidate, _ b: Candidate, _ c: Candidate) -> Candidate {
        if a.precedes(b) { return b.precedes(c) ? b : a.precedes(c) ? c : a }
        return a.precedes(c) ? a : b.precedes(c) ? c : b
    }
}
