// Shows the OpenAPI document, whose address is relative to this script's. A key entered under
// "Authorize" is gone when the page is closed.
SwaggerUIBundle({
  url: new URL("../api/openapi.json", document.currentScript.src).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: "none",
});
