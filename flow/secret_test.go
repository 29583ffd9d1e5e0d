package flow

import (
	"reflect"
	"testing"

	"github.com/oidc-device/kubectl-oidc_device/internal/secret/secrettest"
)

func TestNoTypePrintsASecret(t *testing.T) {
	secrettest.Types(t, []reflect.Type{
		reflect.TypeFor[Authorization](), reflect.TypeFor[Previous](), reflect.TypeFor[Token](), reflect.TypeFor[tokenAnswer](),
	}, nil, []string{
		"Endpoints.Token", "metadata.Token", // URLs
	})
}
