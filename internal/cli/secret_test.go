package cli

import (
	"reflect"
	"testing"

	"github.com/oidc-device/kubectl-oidc_device/internal/secret/secrettest"
)

func TestNoTypePrintsASecret(t *testing.T) {
	secrettest.Types(t, []reflect.Type{
		reflect.TypeFor[options](), reflect.TypeFor[secretFlag](), reflect.TypeFor[session](),
		reflect.TypeFor[sessionState](), reflect.TypeFor[inventory](), reflect.TypeFor[kubeconfigRef](),
		reflect.TypeFor[revocable](), reflect.TypeFor[setup](), reflect.TypeFor[doctor](), reflect.TypeFor[kubeconfigs](), reflect.TypeFor[kubeconfigUser](),
	}, []string{"cache.Entry", "cache.Secret", "flow.Token", "flow.Previous", "flow.Authorization", "execcred.Credential"}, []string{
		"options.secretFile",                                                                            // a path
		"sessionState.TokenKind", "options.broaderToken", "policy.BroaderToken", "policy.RefreshTokens", // words
	})
}
