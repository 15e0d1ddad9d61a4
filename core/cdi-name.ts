// Names of devices that vendors describe in files of nodes: "vendor.com/class=name".

const CDI_NAME =
  /^[A-Za-z](?:[\w.-]*[A-Za-z0-9])?\/[A-Za-z](?:[\w.-]*[A-Za-z0-9])?=[A-Za-z0-9](?:[\w.:-]*[A-Za-z0-9])?$/;

export function isCdiName(text: string): boolean {
  return CDI_NAME.test(text);
}
