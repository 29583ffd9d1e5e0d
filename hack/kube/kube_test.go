package kube

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
)

func TestAuthenticationConfiguration(t *testing.T) {
	got := AuthenticationConfiguration(
		Issuer{URL: "https://a.example.com", Audiences: []string{"one", "two"}, CA: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")},
		Issuer{URL: "https://b.example.com", Audiences: []string{"one"}, UsernameClaim: "email", GroupsClaim: "roles", Prefix: "b:"},
	)
	want := `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
  - path: /healthz
jwt:
- issuer:
    url: "https://a.example.com"
    audiences:
    - "one"
    - "two"
    audienceMatchPolicy: MatchAny
    certificateAuthority: |
      -----BEGIN CERTIFICATE-----
      AAAA
      -----END CERTIFICATE-----
  claimMappings:
    username:
      claim: "sub"
      prefix: "oidc:"
    groups:
      claim: "groups"
      prefix: "oidc:"
- issuer:
    url: "https://b.example.com"
    audiences:
    - "one"
  claimMappings:
    username:
      claim: "email"
      prefix: "b:"
    groups:
      claim: "roles"
      prefix: "b:"
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRootFromAFolderBelow(t *testing.T) {
	for _, below := range []string{".", "tools", filepath.Join("..", "..")} {
		t.Run(below, func(t *testing.T) {
			t.Chdir(below)
			root, err := Root()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(root, "hack", "kube", "tools", "go.mod")); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("outside", func(t *testing.T) {
		t.Chdir(t.TempDir())
		if root, err := Root(); err == nil {
			t.Errorf("found %s", root)
		}
	})
}

func TestServingCertificate(t *testing.T) {
	ca, err := NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Serving("127.0.0.1", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM)
	for _, name := range []string{"127.0.0.1", "localhost"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "example.com"}); err == nil {
		t.Error("good for example.com")
	}
}
