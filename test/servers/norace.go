//go:build !race

package servers

const underRace = false
