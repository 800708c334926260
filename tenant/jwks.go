package tenant

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math/big"
	"strings"
)

// Bounds of a set of keys.
const (
	maxJWKS     = 128 << 10 // bytes that are fetched
	MaxJWKS     = 32 << 10  // bytes that are uploaded
	maxKeys     = 64
	maxSetValue = 4096 // values in the JSON of a set, or of what discovery finds
	minRSA      = 2048 // bits
	maxRSA      = 8192 // bits: verifying takes longer with each
)

// publicKey is one key of a provider, and which signatures it proves.
type publicKey struct {
	kid string
	kty string
	alg string // "" proves all that its kind of key can
	key crypto.PublicKey
}

// proves reports whether the key may prove a signature by that algorithm. The
// key says what it is for, the token only what it was made with: an RSA key
// taken for an HMAC secret, or for another curve's, is how tokens are forged.
func (k *publicKey) proves(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		return alg == map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[key.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// CheckJWKS says what is wrong with a set of keys that a company uploads.
func CheckJWKS(b []byte) error {
	if len(b) > MaxJWKS {
		return fmt.Errorf("it has more than %d bytes", MaxJWKS)
	}
	keys, err := parseJWKS(b, true)
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("there is no key in it that can prove a signature")
	}
	return err
}

// parseJWKS reads a set of keys (RFC 7517). Keys for something else, of an
// unknown kind or without a name are left out; with strict they are an error, as
// is a private key, which nobody should send.
func parseJWKS(b []byte, strict bool) (keys []publicKey, err error) {
	set, err := readObject(b, maxSetValue)
	if err != nil {
		return nil, fmt.Errorf("it %w", err)
	}
	list, ok := set["keys"].([]any)
	if !ok || len(list) > maxKeys {
		return nil, fmt.Errorf(`it must have "keys", a list of at most %d`, maxKeys)
	}
	for i, v := range list {
		object, _ := v.(map[string]any)
		k, err := parseJWK(object)
		if err != nil {
			if strict {
				return nil, fmt.Errorf("keys[%d] %w", i, err)
			}
			continue
		}
		for _, other := range keys {
			if other.kid == k.kid && other.kty == k.kty {
				return nil, fmt.Errorf("keys[%d] has the kid of another", i)
			}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func parseJWK(o map[string]any) (k publicKey, err error) {
	text := func(name string) string { s, _ := o[name].(string); return s }
	if _, private := o["d"]; private {
		return k, fmt.Errorf("is a private key: make a new one, and send its public part only")
	}
	if use := text("use"); use != "" && use != "sig" {
		return k, fmt.Errorf("is not for signatures")
	}
	k.kid, k.kty, k.alg = text("kid"), text("kty"), text("alg")
	if k.kid == "" || len(k.kid) > maxText {
		return k, fmt.Errorf("must have a kid of 1 to %d bytes", maxText)
	}
	switch k.kty {
	case "RSA":
		k.key, err = rsaKey(text("n"), text("e"))
	case "EC":
		k.key, err = ecKey(text("crv"), text("x"), text("y"))
	case "OKP":
		x, bad := rawURL.DecodeString(text("x"))
		if text("crv") != "Ed25519" || bad != nil || len(x) != ed25519.PublicKeySize {
			return k, fmt.Errorf("is no Ed25519 key")
		}
		k.key = ed25519.PublicKey(x)
	default:
		return k, fmt.Errorf("is of a kind that is not taken: RSA, EC or OKP")
	}
	if err == nil && k.alg != "" && !k.proves(k.alg) {
		err = fmt.Errorf("has an alg that does not fit the key, or is not taken")
	}
	return k, err
}

func rsaKey(n, e string) (*rsa.PublicKey, error) {
	modulus, errN := rawURL.DecodeString(n)
	exponent, errE := rawURL.DecodeString(e)
	if errN != nil || errE != nil || len(modulus) > maxRSA/8+1 || len(exponent) == 0 || len(exponent) > 4 {
		return nil, fmt.Errorf("is no RSA key")
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(new(big.Int).SetBytes(exponent).Int64())}
	switch bits := key.N.BitLen(); {
	case bits < minRSA || bits > maxRSA:
		return nil, fmt.Errorf("must have %d to %d bits", minRSA, maxRSA)
	case key.N.Bit(0) == 0 || key.E < 3 || key.E&1 == 0 || key.E > 1<<31-1:
		return nil, fmt.Errorf("is no RSA key")
	}
	return key, nil
}

func ecKey(crv, x, y string) (*ecdsa.PublicKey, error) {
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[crv]
	if curve == nil {
		return nil, fmt.Errorf("must be on P-256, P-384 or P-521")
	}
	size := (curve.Params().BitSize + 7) / 8
	point := make([]byte, 1+2*size)
	point[0] = 4
	for i, part := range []string{x, y} {
		b, err := rawURL.DecodeString(part)
		if err != nil || len(b) != size {
			return nil, fmt.Errorf("is no EC key")
		}
		copy(point[1+i*size:], b)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("is no point of its curve")
	}
	return key, nil
}
