/// Functions of the model that a C library would compute by one of several ways, as the processor suggests. These have one:
/// products and sums in the order that is written here. Arguments are finite; errors are in units of the last place.
extension Kernels {
    /// ln 2 in two parts; the first has 20 zeros at its end, so that its product with an exponent is exact.
    private static var ln2: (high: Double, low: Double) { (0x1.62e42fefp-1, 0x1.473de6af278edp-34) }

    /// e^x within 2: 0 below -708, infinite above 709.
    public static func exponential(_ x: Double) -> Double {
        guard x > -708 else { return 0 }
        guard x < 709 else { return .infinity }
        let n = (x * 0x1.71547652b82fep0).rounded()
        let r = x - n * ln2.high - n * ln2.low
        // Σ r^k / k!, |r| ≤ ln 2 / 2.
        var sum = 1.0
        for k in stride(from: 14.0, through: 1, by: -1) { sum = 1 + sum * r / k }
        return Double(sign: .plus, exponent: Int(n), significand: sum)
    }

    /// ln x for positive x, within 2 where x is not near 1.
    public static func logarithm(_ x: Double) -> Double {
        var (m, exponent) = (x.significand, Double(x.exponent))
        if m > 1.414_213_562_373_095 { (m, exponent) = (m / 2, exponent + 1) }
        // ln m = 2 Σ s^(2k+1) / (2k+1), |s| ≤ 0.172.
        let s = (m - 1) / (m + 1)
        var sum = 0.0
        for k in stride(from: 23.0, through: 1, by: -2) { sum = 1 / k + sum * (s * s) }
        return exponent * ln2.high + (2 * s * sum + exponent * ln2.low)
    }

    /// x^y for positive x; the error grows with the size of y ln x.
    public static func power(_ x: Double, _ y: Double) -> Double { exponential(y * logarithm(x)) }

    /// cos x and sin x within 10⁻¹⁵, for |x| up to a million.
    public static func cosineAndSine(_ x: Double) -> (cosine: Double, sine: Double) {
        // π / 2 in three parts; the products of the first two with n are exact.
        let n = (x * 0x1.45f306dc9c883p-1).rounded()
        let r = x - n * 0x1.921fb544p0 - n * 0x1.0b4611a6p-34 - n * 0x1.3198a2e037073p-69
        // Taylor's series, |r| ≤ π / 4.
        let square = r * r
        var (cosine, sine) = (1.0, 1.0)
        for k in stride(from: 18.0, through: 2, by: -2) {
            cosine = 1 - cosine * square / (k * (k - 1))
            sine = 1 - sine * square / (k * (k + 1))
        }
        sine *= r
        switch Int(n) & 3 {
        case 0: return (cosine, sine)
        case 1: return (-sine, cosine)
        case 2: return (-cosine, -sine)
        default: return (sine, -cosine)
        }
    }
}
