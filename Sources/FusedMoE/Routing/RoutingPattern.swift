/// How the tokens of a made-up call choose their experts.
public enum RoutingPattern: Sendable, Equatable {
    /// Every set of k experts is equally likely, as in the published measurements.
    case uniform
    /// Expert e (counted from 0) is drawn in proportion to (e + 1)^-exponent.
    case zipf(exponent: Double)
    /// The experts of device 0 are drawn `ratio` times as often as the others.
    case hotspot(ratio: Double)

    /// Largest exponent and ratio that are accepted.
    public static let largestParameter = 1_000_000.0

    /// Parses `uniform`, `zipf=1.2` or `hotspot=4`.
    ///
    /// - Throws: `FusedMoEError` with code `.routing`.
    public init(parsing text: String) throws(FusedMoEError) {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let number = parts.count == 2 ? Double(parts[1]) : nil
        switch (parts.first, parts.count) {
        case ("uniform", 1): self = .uniform
        case ("zipf", 2): self = .zipf(exponent: try Self.checked("zipf's exponent", number, parts[1], from: 0))
        case ("hotspot", 2): self = .hotspot(ratio: try Self.checked("the hotspot's ratio", number, parts[1], from: 1))
        default:
            throw FusedMoEError(
                .routing, "routing is uniform, zipf=EXPONENT or hotspot=RATIO, not \"\(text)\"")
        }
    }

    private static func checked(
        _ name: String, _ number: Double?, _ text: Substring, from least: Double
    ) throws(FusedMoEError) -> Double {
        guard let number, number.isFinite, number >= least, number <= largestParameter else {
            throw FusedMoEError(
                .routing, "\(name) is \"\(text)\", it must be a number from \(least) to \(largestParameter)")
        }
        return number
    }

    /// Relative frequency of every expert. Only correctly rounded operations are used, so that it is the same
    /// everywhere.
    func frequencies(experts: Int, expertsPerDevice: Int) -> [Double] {
        switch self {
        case .uniform: [Double](repeating: 1, count: experts)
        case .zipf(let exponent): (0..<experts).map { Self.power(Double($0 + 1), -exponent) }
        case .hotspot(let ratio): (0..<experts).map { $0 < expertsPerDevice ? ratio : 1 }
        }
    }

    /// base^exponent for base ≥ 1 by argument halving and series: no library function, whose last bit differs between
    /// machines.
    static func power(_ base: Double, _ exponent: Double) -> Double {
        let product = exponent * logarithm(base)
        guard product > -700 else { return 0 }
        guard product < 700 else { return .infinity }
        let halvings = 12
        let x = product / 4096
        var term = 1.0
        var sum = 1.0
        for n in 1...12 {
            term = term * x / Double(n)
            sum += term
        }
        for _ in 0..<halvings { sum *= sum }
        return sum
    }

    private static func logarithm(_ value: Double) -> Double {
        let ratio = (value.significand - 1) / (value.significand + 1)
        let square = ratio * ratio
        var term = ratio
        var sum = 0.0
        for n in 0..<26 {
            sum += term / Double(2 * n + 1)
            term *= square
        }
        return 2 * sum + Double(value.exponent) * 0.693_147_180_559_945_3
    }
}

extension RoutingPattern: CustomStringConvertible {
    /// As `init(parsing:)` takes it.
    public var description: String {
        switch self {
        case .uniform: "uniform"
        case .zipf(let exponent): "zipf=\(exponent)"
        case .hotspot(let ratio): "hotspot=\(ratio)"
        }
    }
}
