/// Guesses what was meant by a word that is not known.
public enum Spelling {
    /// The known word that is nearest to `word`; nil when none is near.
    public static func nearest(to word: String, among known: [String]) -> String? {
        let word = Array(word.lowercased().utf8.prefix(64))
        guard word.count > 1 else { return nil }
        let ranked = known.map { name in
            let letters = Array(name.lowercased().utf8)
            return (name: name, distance: distance(word, letters), longer: abs(letters.count - word.count))
        }
        let best = ranked.min { ($0.distance, $0.longer, $0.name) < ($1.distance, $1.longer, $1.name) }
        if let best, best.distance <= max(1, word.count / 3) { return best.name }
        let longer = known.filter { $0.lowercased().utf8.starts(with: word) }
        return word.count > 2 && longer.count == 1 ? longer.first : nil
    }

    /// `, did you mean …?` for what is near, or nothing.
    public static func hint(_ word: String, among known: [String], prefix: String = "") -> String {
        nearest(to: word, among: known).map { ", did you mean \(prefix)\($0)?" } ?? ""
    }

    /// Letters to change, leave out, add or swap with their neighbour until one word is the other.
    static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        var before: [Int] = []
        var last = Array(0...b.count)
        for i in a.indices {
            var row = [i + 1]
            for j in b.indices {
                var cost = min(last[j] + (a[i] == b[j] ? 0 : 1), last[j + 1] + 1, row[j] + 1)
                if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { cost = min(cost, before[j - 1] + 1) }
                row.append(cost)
            }
            (before, last) = (last, row)
        }
        return last[b.count]
    }
}
